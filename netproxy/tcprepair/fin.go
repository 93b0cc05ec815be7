package tcprepair

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// injectFIN makes the leg receive the end of the application's output, by a raw
// packet with the application's address. The leg acknowledges it at once,
// towards an application that does not exist yet; the RST which that may earn is
// kept from the leg by its shield until Activate.
func injectFIN(ns, fd int, p *Peer, m *Mirror, mark uint32) error {
	if err := shield(fd); err != nil {
		return fmt.Errorf("shield: %w", err)
	}
	return sendRaw(ns, mark, segment{
		from: p.Local, to: p.Remote, seq: m.Rcv, ack: m.Snd, flags: tcpFIN | tcpACK,
		window: window(m.SndWnd, p.RcvWscale),
	})
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
