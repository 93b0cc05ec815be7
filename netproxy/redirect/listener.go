package redirect

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// DefaultBacklog is how many connections the listeners hold while nobody
// accepts (a recovery). The namespace's net.core.somaxconn, 4096 by default, is
// the upper limit.
const DefaultBacklog = 4096

// An accepted socket probes a peer that has been silent for KeepAliveIdle seconds,
// then every KeepAliveInterval seconds, and gives it up after KeepAliveCount probes
// without an answer.
const (
	KeepAliveIdle     = 120
	KeepAliveInterval = 20
	KeepAliveCount    = 4
)

// Listener is a pair of transparent listening sockets, one per address family,
// bound to the loopback addresses so that only redirection reaches them. The
// descriptors are non-blocking and meant for epoll; an accepted socket inherits
// MarkOwn and transparency (not O_NONBLOCK: use accept4), and its local address
// is the one the client asked for.
type Listener struct {
	// FD4 and FD6 are the sockets, or -1 where the namespace lacks the family.
	FD4, FD6 int
	// Port4 and Port6 are their ports, or 0.
	Port4, Port6 uint16
}

// Listen opens the listeners in network namespace ns on ports the kernel
// chooses. backlog 0 means DefaultBacklog. The caller closes the Listener.
func Listen(ns, backlog int) (*Listener, error) {
	if backlog <= 0 {
		backlog = DefaultBacklog
	}
	l := &Listener{FD4: -1, FD6: -1}
	err := netns.Do(ns, func() (err error) {
		l.FD4, l.Port4, err = listen(unix.AF_INET, backlog)
		if err != nil {
			return fmt.Errorf("IPv4: %w", err)
		}
		l.FD6, l.Port6, err = listen(unix.AF_INET6, backlog)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("IPv6: %w", err)
		}
		return nil
	})
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("listen for redirected connections: %w", err)
	}
	return l, nil
}

// Close closes both sockets. Connections not yet accepted are reset.
func (l *Listener) Close() error {
	var errs []error
	for _, fd := range []*int{&l.FD4, &l.FD6} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

func (l *Listener) port(family int) uint16 {
	if family == 0 {
		return l.Port4
	}
	return l.Port6
}

func listen(family, backlog int) (fd int, port uint16, err error) {
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, 0, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	var addr unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	level, transparent := unix.SOL_IP, unix.IP_TRANSPARENT
	if family == unix.AF_INET6 {
		addr = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
		level, transparent = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		if err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fd, 0, err
		}
	}
	for _, o := range [][3]int{
		{level, transparent, 1},
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{unix.SOL_SOCKET, unix.SO_MARK, int(MarkOwn)},
		// What follows is inherited by accepted sockets.
		{unix.SOL_TCP, unix.TCP_NODELAY, 1},
		// Urgent data stays in the stream.
		{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
		// A client that has vanished must not hold its place for ever.
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.SOL_TCP, unix.TCP_KEEPIDLE, KeepAliveIdle},
		{unix.SOL_TCP, unix.TCP_KEEPINTVL, KeepAliveInterval},
		{unix.SOL_TCP, unix.TCP_KEEPCNT, KeepAliveCount},
	} {
		if err = unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return fd, 0, err
		}
	}
	if err = unix.Bind(fd, addr); err != nil {
		return fd, 0, err
	}
	if err = unix.Listen(fd, backlog); err != nil {
		return fd, 0, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return fd, 0, err
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		port = uint16(a.Port)
	case *unix.SockaddrInet6:
		port = uint16(a.Port)
	}
	return fd, port, nil
}
