package journal

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// fields takes the fields of a body apart. The first that is missing or out of
// range sets bad; later ones are then zero.
type fields struct {
	b   []byte
	bad bool
}

// uvarint takes a varint in its shortest form.
func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 || n > 1 && f.b[n-1] == 0 {
		f.bad, f.b = true, nil
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) uint32() uint32 {
	v := f.uvarint()
	if v > math.MaxUint32 {
		f.bad = true
		return 0
	}
	return uint32(v)
}

func (f *fields) take(n int) []byte {
	if n > len(f.b) {
		f.bad, f.b = true, nil
		return nil
	}
	v := f.b[:n]
	f.b = f.b[n:]
	return v
}

// byte takes a byte that must lie between lo and hi.
func (f *fields) byte(lo, hi byte) byte {
	v := f.take(1)
	if v == nil || v[0] < lo || v[0] > hi {
		f.bad = true
		return lo
	}
	return v[0]
}

func (f *fields) uint16() uint16 {
	if v := f.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (f *fields) uint64() uint64 {
	if v := f.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (f *fields) addr() netip.AddrPort {
	var ip netip.Addr
	a := fields{b: f.take(int(f.byte(2, maxAddr-1)))}
	switch n := len(a.b) - 2; {
	case n == 0:
	case n == 4:
		ip = netip.AddrFrom4([4]byte(a.take(4)))
	case n >= 16:
		ip = netip.AddrFrom16([16]byte(a.take(16)))
		if zone := a.take(n - 16); len(zone) > 0 {
			ip = ip.WithZone(string(zone))
		}
	default:
		f.bad = true
	}
	port := a.uint16()
	f.bad = f.bad || a.bad || len(a.b) > 0
	return netip.AddrPortFrom(ip, port)
}

func (f *fields) open() ConnOpen {
	return ConnOpen{
		Conn:      f.uint32(),
		Direction: Direction(f.byte(byte(In), byte(Out))),
		Client:    f.addr(),
		Server:    f.addr(),
		LegPort:   f.uint16(),
	}
}

// decode sets the fields of rec that depend on its type from the body of a
// frame. It returns what is wrong with the body, or "".
func decode(rec *Record, body []byte) (reason string) {
	f := fields{b: body}
	switch rec.Type {
	case TypeOpen:
		rec.Open = f.open()
		rec.Conn = rec.Open.Conn
	case TypeInput:
		rec.Conn, rec.Offset, rec.OutPos = f.uint32(), f.uvarint(), f.uvarint()
		rec.Payload = f.take(len(f.b))
	case TypeConsumed:
		rec.Conn, rec.Offset = f.uint32(), f.uvarint()
	case TypeOutput:
		rec.Conn, rec.Offset, rec.Length, rec.Hash = f.uint32(), f.uvarint(), f.uint32(), f.uint64()
	case TypeOutputBytes:
		rec.Conn, rec.Offset = f.uint32(), f.uvarint()
		rec.Payload = f.take(len(f.b))
	case TypeClose:
		rec.Conn, rec.Direction = f.uint32(), Direction(f.byte(byte(In), byte(Out)))
		rec.Close, rec.Offset = CloseKind(f.byte(byte(FIN), byte(RST))), f.uvarint()
	case TypeMark:
		rec.Mark = MarkKind(f.byte(byte(ContainerStart), byte(RecoveryComplete)))
		rec.Checkpoint = f.uvarint()
	case TypeDatagram:
		rec.Source, rec.Dest, rec.Sent = f.addr(), f.addr(), f.uvarint()
		rec.Payload = f.take(len(f.b))
	case TypeDatagramTaken:
		rec.Of = Position(f.uvarint())
	case TypeDatagramSent:
		rec.Flow, rec.Hash = f.uint64(), f.uint64()
	case TypeUrgent, TypeRepeated:
		rec.Conn, rec.Offset = f.uint32(), f.uvarint()
	case TypeFailed:
		rec.Conn, rec.Errno = f.uint32(), f.uint32()
	default:
		return "unknown record type"
	}
	if f.bad || len(f.b) > 0 || len(rec.Payload) > MaxPayload {
		return "malformed " + rec.Type.String() + " record"
	}
	return ""
}
