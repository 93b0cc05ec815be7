package netproxy

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// onFD runs fn on the descriptor of a connection.
func onFD(c syscall.Conn, fn func(fd int) error) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) { err = fn(int(fd)) })
	if cerr != nil {
		return cerr
	}
	return err
}

// urge sends a byte as urgent data. It waits for room behind what was sent before.
func urge(c *net.TCPConn, b byte) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), []byte{b}, unix.MSG_OOB, nil)
		return sent != unix.EAGAIN
	})
	return errors.Join(err, sent)
}

// awaitUrgent waits for urgent data.
func awaitUrgent(c *net.TCPConn) error {
	return onFD(c, func(fd int) error {
		for end := time.Now().Add(soon); time.Now().Before(end); {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
			if n, err := unix.Poll(fds, 1000); n > 0 || err != nil && err != unix.EINTR {
				return err
			}
		}
		return fmt.Errorf("no urgent data")
	})
}

// takeUrgent waits for urgent data and takes it out of turn.
func takeUrgent(c *net.TCPConn) (string, error) {
	b := make([]byte, 1)
	err := awaitUrgent(c)
	if err == nil {
		err = onFD(c, func(fd int) error {
			_, _, err := unix.Recvfrom(fd, b, unix.MSG_OOB)
			return err
		})
	}
	return string(b), err
}

func (t *talk) urge(b byte) { t.note("urged: %s", kind(urge(t.TCPConn, b))) }

func (t *talk) getUrgent() {
	b, err := takeUrgent(t.TCPConn)
	t.note("urgent %q: %s", b, kind(err))
}

// inLine keeps urgent data in the stream and says where it is.
func (t *talk) inLine() {
	t.note("in line: %s", kind(onFD(t.TCPConn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	})))
}

func (t *talk) mark() {
	t.note("at the mark: %v", onFD(t.TCPConn, func(fd int) error {
		at, err := unix.IoctlGetInt(fd, unix.SIOCATMARK)
		if err == nil && at == 0 {
			err = fmt.Errorf("not there")
		}
		return err
	}))
}

// sayUrgently is heard by the functions below it. What is sent next waits for a
// word of the listener, since it ends a read.
func (t *talk) sayUrgently() {
	t.send("ab")
	t.urge('X')
	t.get(1)
	t.send("cd")
	t.half()
	t.rest()
}

func (t *talk) listen() {
	t.getUrgent()
	t.get(2)
	t.send("!")
	t.get(2)
	t.rest()
	t.Close()
}

func (t *talk) listenInLine() {
	t.inLine()
	t.send("?")
	t.note("announced: %v", awaitUrgent(t.TCPConn))
	t.get(2)
	t.mark()
	t.get(1)
	t.send("!")
	t.get(2)
	t.rest()
	t.Close()
}

// TestUrgentData reaches the other end as such, either way, in line or not.
func TestUrgentData(t *testing.T) {
	for _, source := range []order.Kind{order.Auto, order.Serial} {
		r := newTCPRig(t, source, nil)
		for name, say := range map[string][2]func(*talk){
			"to the server":          {(*talk).sayUrgently, (*talk).listen},
			"to the client":          {(*talk).listen, (*talk).sayUrgently},
			"to the server, in line": {func(c *talk) { c.get(1); c.sayUrgently() }, (*talk).listenInLine},
			"to the client, in line": {(*talk).listenInLine, func(s *talk) { s.get(1); s.sayUrgently() }},
			"nothing else": {
				func(c *talk) { c.urge('1'); c.get(1); c.urge('2'); c.get(1); c.half() },
				func(s *talk) { s.getUrgent(); s.send("!"); s.getUrgentAgain(); s.send("!"); s.rest() },
			},
			"behind much": {
				func(c *talk) { c.send(string(blob(3 << 20))); c.urge('X'); c.send("end"); c.half(); c.rest() },
				func(s *talk) { time.Sleep(50 * time.Millisecond); s.rest(); s.Close() },
			},
		} {
			direct := r.hold(nstest.App4, directPort, say[0], say[1])
			proxied := r.hold(nstest.App4, proxiedPort, say[0], say[1])
			assert.Equal(t, direct, proxied, "%v: %s", source, name)
		}
		require.NotZero(t, r.proxy.Stats().Accepted)
	}
}

// getUrgentAgain waits for a second byte while the first is still where it was.
func (t *talk) getUrgentAgain() {
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if b, err := takeUrgent(t.TCPConn); err == nil && b == "2" {
			t.note("urgent again %q", b)
			return
		}
	}
	t.note("no second urgent byte")
}

// TestUrgentDataSurvives: urgent data comes again in a replay, and what is counted
// stays right behind it.
func TestUrgentDataSurvives(t *testing.T) {
	for name, source := range kinds {
		t.Run(name, func(t *testing.T) {
			r := newRigWith(t, source, journal.Options{}, func(*Options) {})
			serve := func(a *teller, c *net.TCPConn) {
				defer c.Close()
				in := bufio.NewReader(c)
				for n := 1; ; n++ {
					b, err := takeUrgent(c)
					if err != nil {
						return
					}
					fmt.Fprintf(c, "urgent %d %s\n", n, b)
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					fmt.Fprintf(c, "line %s", line)
					if err := urge(c, b[0]); err != nil {
						return
					}
				}
			}
			a := r.teller(serve)
			raw, err := r.dial(nstest.App4, tellerPort)
			require.NoError(t, err)
			defer raw.Close()
			c := raw.(*net.TCPConn)
			answers := bufio.NewReader(c)
			expect := func(want string) {
				t.Helper()
				require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
				line, err := answers.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, want+"\n", line)
			}
			for n := 1; n <= 4; n++ {
				b := byte('A' + n)
				require.NoError(t, urge(c, b))
				expect(fmt.Sprintf("urgent %d %c", n, b))
				if n%2 == 0 { // between the urgent byte and what it stands before
					var res ReplayResult
					a, res = r.restart(a, serve)
					require.Zero(t, res.Differing)
					require.Zero(t, res.Reset)
				}
				_, err = fmt.Fprintf(c, "hello %d\n", n)
				require.NoError(t, err)
				expect(fmt.Sprintf("line hello %d", n))
				got, err := takeUrgent(c)
				require.NoError(t, err)
				require.Equal(t, string(b), got)
			}
			other := r.dialOK(netip.AddrPortFrom(nstest.App4, tellerPort))
			require.NoError(t, urge(other, 'Z'))
			line, err := bufio.NewReader(other).ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "urgent 1 Z\n", line, "others are served")
		})
	}
}

func (r *rig) dialOK(to netip.AddrPort) *net.TCPConn {
	r.t.Helper()
	c, err := r.dial(to.Addr(), to.Port())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { c.Close() })
	require.NoError(r.t, c.SetDeadline(time.Now().Add(soon)))
	return c.(*net.TCPConn)
}
