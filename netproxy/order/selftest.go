package order

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// selfTest sends one byte over a loopback connection of the namespace and
// expects its event: a kernel whose structures are not what its BTF says must
// be found out now and not in a recovery. Without a loopback interface there is
// nothing to test with, and nothing to watch.
func (t *tracepoint) selfTest(o Options) error {
	var port uint16
	err := netns.Do(o.NetNS, func() (err error) {
		port, err = oneByte(o.LowPort, o.HighPort)
		return err
	})
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	seen := false
	err = t.Poll(func(e Event) { seen = seen || e.LegPort == port })
	if err != nil {
		return fmt.Errorf("self-test: %w", err)
	}
	if !seen {
		return errors.New("self-test: the tracepoint reported nothing")
	}
	return nil
}

// oneByte receives a byte on a socket whose peer's port lies in the range, and
// returns that port. Both ends go by reset, without TIME_WAIT.
func oneByte(low, high uint16) (uint16, error) {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(fd)
		}
	}()
	socket := func() (int, error) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			fds = append(fds, fd)
		}
		return fd, err
	}
	loopback := [4]byte{127, 0, 0, 1}
	l, err := socket()
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: loopback}); err != nil {
		return 0, err
	}
	if err := unix.Listen(l, 1); err != nil {
		return 0, err
	}
	to, err := unix.Getsockname(l)
	if err != nil {
		return 0, err
	}
	c, err := socket()
	if err != nil {
		return 0, err
	}
	port := high
	for err = unix.EADDRINUSE; errors.Is(err, unix.EADDRINUSE) && port >= low; port-- {
		err = unix.Bind(c, &unix.SockaddrInet4{Addr: loopback, Port: int(port)})
	}
	port++
	if err != nil {
		return 0, err
	}
	if err := netns.ConnectLoopback(c, to); err != nil {
		return 0, err
	}
	s, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return 0, err
	}
	fds = append(fds, s)
	if _, err := unix.Write(c, []byte{0}); err != nil {
		return 0, err
	}
	_, err = unix.Read(s, make([]byte, 1))
	return port, err
}
