package datagrams

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Port is where the server listens, by UDP and TCP, IPv4 and IPv6.
const Port = 7007

// At are the server's addresses at some of IP.
func At(addrs ...netip.Addr) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		out = append(out, netip.AddrPortFrom(a, Port))
	}
	return out
}

// server does everything on one thread, so that its order is that of its receiving
// system calls.
type server struct {
	counts map[string]int
	chain  uint64
	fds    []unix.PollFd // UDP, listener, connections
	buf    []byte
	oob    []byte
}

// Serve serves until it fails.
func Serve() error {
	s := &server{counts: map[string]int{}, buf: make([]byte, 1<<16), oob: make([]byte, 1<<10)}
	for _, typ := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
		fd, err := bound(typ)
		if err != nil {
			return fmt.Errorf("port %d: %w", Port, err)
		}
		s.fds = append(s.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for {
		if _, err := unix.Poll(s.fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if err := s.turn(); err != nil {
			return err
		}
	}
}

func bound(typ int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET6, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if typ == unix.SOCK_DGRAM {
		// Answers leave from the address that was asked.
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1))
	} else {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: Port}); err != nil {
		return -1, err
	}
	if typ == unix.SOCK_STREAM {
		err = unix.Listen(fd, 64)
	}
	return fd, err
}

func (s *server) turn() error {
	if s.fds[0].Revents != 0 {
		n, oobn, _, from, err := unix.Recvmsg(int(s.fds[0].Fd), s.buf, s.oob, unix.MSG_DONTWAIT)
		if err == nil {
			// The ancillary data says where the answer comes from.
			err = unix.Sendmsg(int(s.fds[0].Fd), s.answer(s.buf[:n]), s.oob[:oobn], from, 0)
		}
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("UDP: %w", err)
		}
	}
	for i := 2; i < len(s.fds); i++ {
		if s.fds[i].Revents == 0 {
			continue
		}
		n, err := unix.Read(int(s.fds[i].Fd), s.buf)
		if err == nil && n > 0 {
			_, err = unix.Write(int(s.fds[i].Fd), s.answer(s.buf[:n]))
		}
		if err != nil || n <= 0 {
			unix.Close(int(s.fds[i].Fd))
			s.fds[i].Fd = -1
		}
	}
	if s.fds[1].Revents != 0 {
		fd, _, err := unix.Accept(int(s.fds[1].Fd))
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		s.fds = append(s.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return nil
}

// answer counts a request "NAME ...\n" and returns "REQUEST'S FIRST TWO WORDS
// COUNT CHAIN\n".
func (s *server) answer(request []byte) []byte {
	h := fnv.New64a()
	fmt.Fprint(h, s.chain)
	h.Write(request)
	s.chain = h.Sum64()
	words := append(bytes.Fields(request), []byte("?"), []byte("?"))
	s.counts[string(words[0])]++
	return fmt.Appendf(nil, "%s %s %d %016x\n", words[0], words[1], s.counts[string(words[0])], s.chain)
}
