package nfqueue

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func udp4(more uint16, length int, payload string) []byte {
	b := make([]byte, ip4MinLen+udpHeadLen)
	b[0], b[9] = 0x45, 17
	binary.BigEndian.PutUint16(b[6:], more)
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 0, 99})
	binary.BigEndian.PutUint16(b[24:], uint16(length))
	return append(b, payload...)
}

func TestDatagram(t *testing.T) {
	p := Packet{Payload: udp4(0, udpHeadLen+5, "hello and padding")}
	d, ok := p.Datagram()
	require.True(t, ok)
	require.Equal(t, Datagram{netip.MustParseAddrPort("10.0.0.1:53"), netip.MustParseAddrPort("10.0.0.2:99"), []byte("hello")}, d)
	_, _, ok = p.Ends()
	require.False(t, ok, "it is not TCP")
	for what, b := range map[string][]byte{
		"first fragment": udp4(0x2000, 100, "x"), "later fragment": udp4(1, 9, "x"), "short": udp4(0, 9, "")[:27], "empty": nil,
	} {
		_, ok := (&Packet{Payload: b}).Datagram()
		require.False(t, ok, what)
	}
	d, ok = (&Packet{Payload: udp4(0, 9000, "cut")}).Datagram()
	require.True(t, ok)
	require.Equal(t, "cut", string(d.Payload))
}

func TestAnswers(t *testing.T) {
	b := append(udp4(0, 0, ""), make([]byte, 12)...)
	b[9] = 6
	for flags, want := range map[byte]bool{0x02: false, 0x10: false, 0x12: true, 0x52: true, 0x18: false} {
		b[ip4MinLen+tcpFlags] = flags
		require.Equal(t, want, (&Packet{Payload: b}).Answers(), "flags %#x", flags)
	}
	require.False(t, (&Packet{Payload: b[:ip4MinLen+tcpFlags]}).Answers(), "cut off")
	require.False(t, (&Packet{Payload: udp4(0, 9, "0123456789")}).Answers(), "UDP")
}

func FuzzPacket(f *testing.F) {
	f.Add(udp4(0, 9, "x"))
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 9, 17, 64}, make([]byte, 41)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := Packet{Payload: b}
		if d, ok := p.Datagram(); ok {
			require.True(t, d.Source.IsValid() && d.Dest.IsValid())
			require.LessOrEqual(t, len(d.Payload), len(b))
			_, _, tcp := p.Ends()
			require.False(t, tcp)
			require.False(t, p.Answers())
		}
	})
}
