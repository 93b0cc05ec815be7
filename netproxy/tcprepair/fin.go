package tcprepair

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// injectFIN makes the leg receive the end of the application's output, by a raw
// packet with the application's address. The leg acknowledges it at once,
// towards an application that does not exist yet; the RST which that may earn is
// kept from the leg by its shield until Activate.
func injectFIN(ns, fd int, p *Peer, m *Mirror, mark uint32) error {
	if err := shield(fd); err != nil {
		return fmt.Errorf("shield: %w", err)
	}
	n := networkOf(p.Local.Addr())
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
	to := p.Remote
	sa := sockaddr(to)
	if a, ok := sa.(*unix.SockaddrInet6); ok {
		a.Port = 0 // raw IPv6 sockets take a protocol here
	}
	if err := unix.Sendto(raw, finPacket(p, m), 0, sa); err != nil {
		return fmt.Errorf("send FIN: %w", err)
	}
	return nil
}

const (
	ip4HeaderLen  = 20
	ip6HeaderLen  = 40
	tcpHeaderLen  = 20
	tcpFIN        = 0x01
	tcpACK        = 0x10
	tcpRST        = 0x04
	tcpFlagOffset = 13
)

// finPacket is a TCP segment FIN|ACK from the application to the leg.
func finPacket(p *Peer, m *Mirror) []byte {
	src, dst := p.Local.Addr().Unmap(), p.Remote.Addr().Unmap()
	be := binary.BigEndian
	tcp := make([]byte, tcpHeaderLen)
	be.PutUint16(tcp[0:], p.Local.Port())
	be.PutUint16(tcp[2:], p.Remote.Port())
	be.PutUint32(tcp[4:], m.Rcv)
	be.PutUint32(tcp[8:], m.Snd)
	tcp[12] = tcpHeaderLen / 4 << 4
	tcp[tcpFlagOffset] = tcpFIN | tcpACK
	be.PutUint16(tcp[14:], uint16(min(m.SndWnd>>p.RcvWscale, 0xffff)))
	var ip []byte
	if src.Is4() {
		ip = make([]byte, ip4HeaderLen) // length and checksum are the kernel's work
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
	be.PutUint16(tcp[16:], checksum(src.AsSlice(), dst.AsSlice(), tcp))
	return append(ip, tcp...)
}

// checksum is TCP's, over the pseudo header and the segment (RFC 9293, 3.1).
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

// shield makes the socket deaf to RST by a classic BPF filter, which sees the
// packet from its TCP header on.
func shield(fd int) error {
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: tcpFlagOffset},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: tcpRST, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(prog)), Filter: unsafe.SliceData(prog)})
}

func unshield(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
}
