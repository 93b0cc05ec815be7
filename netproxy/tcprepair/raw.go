package tcprepair

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// segment is a TCP segment without data.
type segment struct {
	from, to netip.AddrPort
	seq, ack uint32
	flags    byte
	window   uint16 // as on the wire
}

const (
	ip4HeaderLen  = 20
	ip6HeaderLen  = 40
	tcpHeaderLen  = 20
	tcpFlagOffset = 13

	tcpFIN = 0x01
	tcpRST = 0x04
	tcpACK = 0x10
)

// window is a window of n bytes in a packet of a sender with that scale.
func window(n, scale uint32) uint16 { return uint16(min(n>>scale, 0xffff)) }

// sendRaw sends s from within namespace ns, with the packet mark.
func sendRaw(ns int, mark uint32, s segment) error {
	return sendIP(ns, mark, s.to, s.packet())
}

// sendIP sends a packet with its IP header.
func sendIP(ns int, mark uint32, to netip.AddrPort, packet []byte) error {
	n := networkOf(to.Addr())
	var raw int
	err := netns.Do(ns, func() (err error) {
		raw, err = unix.Socket(n.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	defer unix.Close(raw)
	if err := unix.SetsockoptInt(raw, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		return fmt.Errorf("mark raw socket: %w", err)
	}
	// Raw IPv6 sockets take a protocol for a port.
	if err := unix.Sendto(raw, packet, 0, sockaddr(netip.AddrPortFrom(to.Addr(), 0))); err != nil {
		return fmt.Errorf("send raw packet: %w", err)
	}
	return nil
}

// packet is the segment with its IP header.
func (s *segment) packet() []byte {
	src, dst := s.from.Addr().Unmap(), s.to.Addr().Unmap()
	be := binary.BigEndian
	tcp := make([]byte, tcpHeaderLen)
	be.PutUint16(tcp[0:], s.from.Port())
	be.PutUint16(tcp[2:], s.to.Port())
	be.PutUint32(tcp[4:], s.seq)
	be.PutUint32(tcp[8:], s.ack)
	tcp[12] = tcpHeaderLen / 4 << 4
	tcp[tcpFlagOffset] = s.flags
	be.PutUint16(tcp[14:], s.window)
	be.PutUint16(tcp[16:], checksum(unix.IPPROTO_TCP, src.AsSlice(), dst.AsSlice(), tcp))
	return ipPacket(src, dst, unix.IPPROTO_TCP, tcp)
}

// ipPacket puts an IP header before body. Length and checksum of an IPv4 header
// are filled in by the kernel.
func ipPacket(src, dst netip.Addr, proto byte, body []byte) []byte {
	var ip []byte
	if src.Is4() {
		ip = make([]byte, ip4HeaderLen)
		ip[0] = 0x45
		ip[8] = 64
		ip[9] = proto
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
	} else {
		ip = make([]byte, ip6HeaderLen)
		ip[0] = 0x60
		binary.BigEndian.PutUint16(ip[4:], uint16(len(body)))
		ip[6] = proto
		ip[7] = 64
		copy(ip[8:], src.AsSlice())
		copy(ip[24:], dst.AsSlice())
	}
	return append(ip, body...)
}

// checksum is that of a transport protocol, over the pseudo header (RFC 9293,
// 3.1; RFC 8200, 8.1) and the body, whose length is even.
func checksum(proto uint32, src, dst, body []byte) uint16 {
	at := sum(proto+uint32(len(body)), src)
	at = sum(uint32(at), dst)
	return ^sum(uint32(at), body)
}

// sum adds up 16-bit words in ones' complement.
func sum(start uint32, b []byte) uint16 {
	n := start
	for i := 0; i+1 < len(b); i += 2 {
		n += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}
