package sockdiag

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Message types and layouts of linux/inet_diag.h and linux/sock_diag.h.
const (
	sockDiagByFamily = 20
	sockDestroy      = 21

	headerLen  = unix.SizeofNlMsghdr
	requestLen = headerLen + 56 // struct inet_diag_req_v2
	answerLen  = 72             // struct inet_diag_msg

	attrInfo   = 2  // INET_DIAG_INFO: struct tcp_info
	attrMemory = 7  // INET_DIAG_SKMEMINFO: an array of u32, SK_MEMINFO_*
	attrMark   = 15 // INET_DIAG_MARK: sent to anyone with CAP_NET_ADMIN
	// Offsets in struct tcp_info.
	infoBytesAcked    = 120
	infoBytesReceived = 128
	infoEnd           = 136
	// and in that of INET_DIAG_SKMEMINFO.
	memoryReceiveBuffer = 4
	memoryEnd           = 8
)

// request is one sock_diag request, built in place.
type request struct {
	typ, flags uint16
	seq        uint32
	family     uint8
	proto      uint8 // 0: TCP
	info       bool
	memory     bool
	states     States
	tuple      Tuple
	cookie     [8]byte
}

// anyCookie is INET_DIAG_NOCOOKIE: the tuple alone identifies the socket.
func anyCookie() (c [8]byte) {
	for i := range c {
		c[i] = 0xff
	}
	return c
}

func (r *request) put(b *[requestLen]byte) {
	clear(b[:])
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], requestLen)
	ne.PutUint16(b[4:], r.typ)
	ne.PutUint16(b[6:], r.flags)
	ne.PutUint32(b[8:], r.seq)
	q := b[headerLen:]
	q[0] = r.family
	q[1] = unix.IPPROTO_TCP
	if r.proto != 0 {
		q[1] = r.proto
	}
	if r.info {
		q[2] = 1 << (attrInfo - 1)
	}
	if r.memory {
		q[2] |= 1 << (attrMemory - 1)
	}
	ne.PutUint32(q[4:], uint32(r.states))
	id := q[8:]
	binary.BigEndian.PutUint16(id[0:], r.tuple.Local.Port())
	binary.BigEndian.PutUint16(id[2:], r.tuple.Remote.Port())
	putAddr(id[4:], r.tuple.Local.Addr())
	putAddr(id[20:], r.tuple.Remote.Addr())
	copy(id[40:], r.cookie[:])
}

func putAddr(b []byte, a netip.Addr) {
	switch {
	case a.Is4():
		v := a.As4()
		copy(b, v[:])
	case a.Is6():
		v := a.As16()
		copy(b, v[:])
	}
}

func getAddr(family uint8, b []byte) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16([16]byte(b[:16])).Unmap()
}

// parse reads one struct inet_diag_msg with its attributes into s.
func parse(b []byte, s *Socket) error {
	if len(b) < answerLen {
		return ErrProtocol
	}
	ne := binary.NativeEndian
	family := b[0]
	id := b[4:52]
	*s = Socket{
		Tuple: Tuple{
			Local:  netip.AddrPortFrom(getAddr(family, id[4:]), binary.BigEndian.Uint16(id[0:])),
			Remote: netip.AddrPortFrom(getAddr(family, id[20:]), binary.BigEndian.Uint16(id[2:])),
		},
		State:     State(b[1]),
		IPv6:      family == unix.AF_INET6,
		RecvQueue: ne.Uint32(b[56:]),
		SendQueue: ne.Uint32(b[60:]),
		UID:       ne.Uint32(b[64:]),
		Inode:     ne.Uint32(b[68:]),
	}
	copy(s.cookie[:], id[40:48])
	for b = b[answerLen:]; len(b) >= unix.SizeofRtAttr; {
		n := int(ne.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return ErrProtocol
		}
		v := b[unix.SizeofRtAttr:n]
		switch typ := ne.Uint16(b[2:]); {
		case typ == attrInfo && len(v) >= infoEnd:
			s.BytesAcked = ne.Uint64(v[infoBytesAcked:])
			s.BytesReceived = ne.Uint64(v[infoBytesReceived:])
		case typ == attrMemory && len(v) >= memoryEnd:
			s.ReceiveBuffer = ne.Uint32(v[memoryReceiveBuffer:])
		case typ == attrMark && len(v) >= 4:
			s.Mark = ne.Uint32(v)
		}
		b = b[min(align4(n), len(b)):]
	}
	return nil
}

func align4(n int) int { return (n + 3) &^ 3 }
