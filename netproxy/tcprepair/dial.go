package tcprepair

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// Spec describes a leg.
type Spec struct {
	// Client is the client's address with the leg's port.
	Client netip.AddrPort
	// App is the address that the client asked for.
	App netip.AddrPort
	// Mark is the SO_MARK, which exempts the socket from redirection. The
	// application's end of a leg may inherit it.
	Mark uint32
	// Priority is its SO_PRIORITY.
	Priority int
}

// Dial opens a fresh leg in network namespace ns (netns.Current: the calling
// thread's) and starts to connect it: it is writable when the connection stands
// or has failed (SO_ERROR). EADDRINUSE means that the port's four-tuple is
// taken; try another port. ECONNREFUSED may be returned at once. The caller
// closes fd.
func Dial(ns int, s Spec) (fd int, err error) {
	return dial(ns, s, true)
}

// DialServer begins a connection to a server, s.App, from the address s.Client,
// which is the container's own. Otherwise it is as Dial.
func DialServer(ns int, s Spec) (fd int, err error) {
	return dial(ns, s, false)
}

func dial(ns int, s Spec, transparent bool) (fd int, err error) {
	fd, err = open(ns, s, transparent)
	if err != nil {
		return -1, fmt.Errorf("open socket %v-%v: %w", s.Client, s.App, err)
	}
	err = unix.Bind(fd, sockaddr(s.Client))
	if err == nil {
		err = unix.Connect(fd, sockaddr(s.App))
	}
	switch err {
	case nil, unix.EINPROGRESS:
		return fd, nil
	case unix.EADDRNOTAVAIL: // connect's word for a four-tuple that is taken
		err = unix.EADDRINUSE
	}
	unix.Close(fd)
	return -1, fmt.Errorf("connect %v-%v: %w", s.Client, s.App, err)
}

// legCongestion is the congestion control of legs. It is built into every
// kernel, and there is no network to learn about on loopback: BBR, the default
// of some hosts, would pace what is sent with timers.
const legCongestion = "reno"

// legSegment is the most that is in a segment between a leg and the application, in
// bytes. With what lo allows, 64 KiB, the kernel would keep more than a megabyte for
// each application that does not read, since send buffers grow by segments.
const legSegment = 1460

// open makes the socket of a leg, which is transparent, or towards a server.
func open(ns int, s Spec, transparent bool) (fd int, err error) {
	n := networkOf(s.App.Addr())
	err = netns.Do(ns, func() (err error) {
		fd, err = unix.Socket(n.family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		return -1, err
	}
	options := [...][3]int{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{unix.SOL_SOCKET, unix.SO_MARK, int(s.Mark)},
		{unix.SOL_SOCKET, unix.SO_PRIORITY, s.Priority},
		{unix.SOL_TCP, unix.TCP_NODELAY, 1},
		// Urgent data stays in the stream, so that offsets count it.
		{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
		// The rest is for legs alone.
		{n.level, n.transparent, 1},
		{unix.SOL_TCP, unix.TCP_MAXSEG, legSegment},
	}
	wanted := options[:]
	if !transparent {
		wanted = options[:len(options)-2]
	}
	for _, o := range wanted {
		if err := setOption(fd, o[0], o[1], o[2]); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("setsockopt %d/%d: %w", o[0], o[1], err)
		}
	}
	if !transparent {
		return fd, nil
	}
	if err := unix.SetsockoptString(fd, unix.SOL_TCP, unix.TCP_CONGESTION, legCongestion); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("setsockopt TCP_CONGESTION %s: %w", legCongestion, err)
	}
	return fd, nil
}
