package timeouts

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// trial are seconds that are told from those of other sockets.
const trial = 97

// calibrate asks about a connection of our own, whose timeouts are known, and
// finds out how long a jiffy is. A kernel whose structures are not what its BTF
// says is found out, too.
func (r *Reader) calibrate() error {
	t, err := newTrial()
	defer t.close()
	if err != nil {
		return err
	}
	got, err := r.read(t.local, t.remote)
	if err != nil {
		return err
	}
	r.hz = got.idle / trial
	if want := (raw{keepAlive: true, idle: r.hz * trial, interval: r.hz * 2, user: 5003, count: 3}); r.hz == 0 || got != want {
		return fmt.Errorf("%+v was read", got)
	}
	return nil
}

// trialConn is a connection with itself over the loopback interface.
type trialConn struct {
	fds           []int
	local, remote netip.AddrPort
}

func newTrial() (t trialConn, err error) {
	socket := func() int {
		if err != nil {
			return -1
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			t.fds = append(t.fds, fd)
		}
		return fd
	}
	l, c := socket(), socket()
	if err != nil {
		return t, err
	}
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return t, err
	}
	if err := unix.Listen(l, 1); err != nil {
		return t, err
	}
	to, err := unix.Getsockname(l)
	if err != nil {
		return t, err
	}
	for _, o := range [][3]int{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.SOL_TCP, unix.TCP_KEEPIDLE, trial}, {unix.SOL_TCP, unix.TCP_KEEPINTVL, 2},
		{unix.SOL_TCP, unix.TCP_KEEPCNT, 3}, {unix.SOL_TCP, unix.TCP_USER_TIMEOUT, 5003},
	} {
		if err := unix.SetsockoptInt(c, o[0], o[1], o[2]); err != nil {
			return t, err
		}
	}
	if err := netns.ConnectLoopback(c, to); err != nil {
		return t, err
	}
	from, err := unix.Getsockname(c)
	if err != nil {
		return t, err
	}
	t.local, t.remote = addrPort(from), addrPort(to)
	return t, nil
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	a, _ := sa.(*unix.SockaddrInet4)
	if a == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
}

// close resets: nothing is left in TIME_WAIT.
func (t *trialConn) close() {
	for _, fd := range t.fds {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		_ = unix.Close(fd)
	}
}
