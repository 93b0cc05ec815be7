package journal

import (
	"encoding/binary"
	"net/netip"
)

const (
	frameSize   = 8 // checksum, length, type
	commitBody  = 8
	commitFrame = frameSize + commitBody

	// maxFields bounds a body without its payload: an Open record with two
	// IPv6 addresses and zones.
	maxFields = 2*maxAddr + 32
	maxBody   = MaxPayload + maxFields

	maxZone = 63
	maxAddr = 1 + 16 + maxZone + 2
)

// appendFrame appends a frame whose length and checksum are still to come.
func appendFrame(b []byte, t Type) []byte {
	return append(b, 0, 0, 0, 0, 0, 0, 0, byte(t))
}

// finishFrame sets the length of the frame that starts at b[0].
func finishFrame(b []byte) {
	n := len(b) - frameSize
	b[4], b[5], b[6] = byte(n), byte(n>>8), byte(n>>16)
}

// frameLength returns the length of the body of the frame that starts at b[0].
func frameLength(b []byte) int { return int(b[4]) | int(b[5])<<8 | int(b[6])<<16 }

// seal sets the checksum of one whole frame.
func seal(salt uint64, pos Position, frame []byte) {
	binary.LittleEndian.PutUint32(frame, checksum(salt, pos, frame[4:]))
}

// appendAddr appends an address and port, with its length before it.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	start := len(b)
	b = append(b, 0)
	switch ip := a.Addr(); {
	case ip.Is4():
		v4 := ip.As4()
		b = append(b, v4[:]...)
	case ip.Is6():
		v6 := ip.As16()
		b = append(b, v6[:]...)
		b = append(b, ip.Zone()...)
	}
	b = binary.LittleEndian.AppendUint16(b, a.Port())
	b[start] = byte(len(b) - start - 1)
	return b
}

func appendOpen(b []byte, o ConnOpen) []byte {
	b = binary.AppendUvarint(b, uint64(o.Conn))
	b = append(b, byte(o.Direction))
	b = appendAddr(b, o.Client)
	b = appendAddr(b, o.Server)
	return binary.LittleEndian.AppendUint16(b, o.LegPort)
}
