package nfqueue

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_queue.h. Attributes are in network byte order.
const (
	msgPacket  = unix.NFNL_SUBSYS_QUEUE << 8
	msgVerdict = unix.NFNL_SUBSYS_QUEUE<<8 | 1
	msgConfig  = unix.NFNL_SUBSYS_QUEUE<<8 | 2

	attrPacketHeader  = 1
	attrVerdictHeader = 2
	attrMark          = 3
	attrInDevice      = 5
	attrPayload       = 10
	attrCaptured      = 13 // NFQA_CAP_LEN: how long the packet is, if it was cut off

	attrConfigCommand = 1
	attrConfigParams  = 2
	attrConfigLength  = 3

	commandBind    = 1
	copyPacket     = 2
	packetIDLen    = 4
	genericLen     = 4 // struct nfgenmsg
	netlinkLen     = unix.SizeofNlMsghdr
	attrHeaderLen  = unix.SizeofNlAttr
	attrTypeMask   = 0x3fff
	familyUnspec   = unix.AF_UNSPEC
	loopbackIndex  = 1 // of lo in every network namespace
	netlinkVersion = 0 // NFNETLINK_V0
)

// ErrProtocol is returned for a message that the kernel does not send.
var ErrProtocol = errors.New("malformed nfnetlink_queue message")

func align4(n int) int { return (n + 3) &^ 3 }

// begin appends the headers of a message; end sets its length.
func begin(b []byte, typ, flags uint16, seq uint32, queue uint16) []byte {
	ne := binary.NativeEndian
	b = ne.AppendUint32(b, 0)
	b = ne.AppendUint16(b, typ)
	b = ne.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = ne.AppendUint32(b, seq)
	b = ne.AppendUint32(b, 0)
	b = append(b, familyUnspec, netlinkVersion)
	return binary.BigEndian.AppendUint16(b, queue)
}

func attr(b []byte, typ uint16, data []byte) []byte {
	ne := binary.NativeEndian
	b = ne.AppendUint16(b, uint16(attrHeaderLen+len(data)))
	b = ne.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func end(b []byte) []byte {
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

func be32(v ...uint32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.BigEndian.AppendUint32(b, x)
	}
	return b
}

// parsePacket reads the attributes of a packet message.
func parsePacket(b []byte) (Packet, error) {
	var p Packet
	if len(b) < genericLen {
		return p, ErrProtocol
	}
	seen := false
	for b = b[genericLen:]; len(b) >= attrHeaderLen; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrHeaderLen || n > len(b) {
			return p, ErrProtocol
		}
		v := b[attrHeaderLen:n]
		switch binary.NativeEndian.Uint16(b[2:]) & attrTypeMask {
		case attrPacketHeader:
			if len(v) < packetIDLen {
				return p, ErrProtocol
			}
			p.ID, seen = binary.BigEndian.Uint32(v), true
		case attrInDevice:
			p.Loopback = len(v) == 4 && binary.BigEndian.Uint32(v) == loopbackIndex
		case attrCaptured:
			p.Cut = true
		case attrPayload:
			p.Payload = v
		}
		b = b[min(align4(n), len(b)):]
	}
	if !seen {
		return p, ErrProtocol
	}
	return p, nil
}
