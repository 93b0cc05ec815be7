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
	n := networkOf(s.to.Addr())
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
	to := sockaddr(netip.AddrPortFrom(s.to.Addr(), 0))
	if err := unix.Sendto(raw, s.packet(), 0, to); err != nil {
		return fmt.Errorf("send raw segment: %w", err)
	}
	return nil
}

// packet is the segment with its IP header. Length and checksum of an IPv4
// header are filled in by the kernel.
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
	be.PutUint16(tcp[16:], checksum(src.AsSlice(), dst.AsSlice(), tcp))
	var ip []byte
	if src.Is4() {
		ip = make([]byte, ip4HeaderLen)
		ip[0] = 0x45
		ip[8] = 64
		ip[9] = unix.IPPROTO_TCP
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
	} else {
		ip = make([]byte, ip6HeaderLen)
		ip[0] = 0x60
		be.PutUint16(ip[4:], tcpHeaderLen)
		ip[6] = unix.IPPROTO_TCP
		ip[7] = 64
		copy(ip[8:], src.AsSlice())
		copy(ip[24:], dst.AsSlice())
	}
	return append(ip, tcp...)
}

// checksum is TCP's, over the pseudo header and the segment (RFC 9293, 3.1),
// whose length is even.
func checksum(src, dst, segment []byte) uint16 {
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(segment))
	for _, b := range [][]byte{src, dst, segment} {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
