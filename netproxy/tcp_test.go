package netproxy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
)

// Being TCP: each conversation is held over the proxy and directly, and both
// ends must see the same.

const (
	proxiedPort = 80
	directPort  = 81
	// soon bounds what takes milliseconds when nothing else runs.
	soon = time.Minute
)

// talk is one end of a conversation; its errors are part of the transcript.
type talk struct {
	*net.TCPConn
	log *transcript
	who string
}

type transcript struct {
	mu    sync.Mutex
	lines map[string][]string // by end: the two run side by side
}

func (t *talk) note(format string, args ...any) {
	t.log.mu.Lock()
	defer t.log.mu.Unlock()
	t.log.lines[t.who] = append(t.log.lines[t.who], fmt.Sprintf(format, args...))
}

// kind is what an application can tell of an error.
func kind(err error) string {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, os.ErrDeadlineExceeded, net.ErrClosed} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return fmt.Sprint(err)
}

func (t *talk) send(s string) {
	_, err := t.Write([]byte(s))
	t.note("sent %.20q: %s", s, kind(err))
}

func (t *talk) get(n int) {
	b := make([]byte, n)
	n, err := io.ReadFull(t, b)
	t.note("got %.20q: %s", b[:n], kind(err))
}

// peek waits for input and leaves it.
func (t *talk) peek() {
	raw, err := t.SyscallConn()
	if err == nil {
		var n int
		var perr error
		err = raw.Read(func(fd uintptr) bool {
			n, _, perr = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
			return perr != unix.EAGAIN
		})
		err = errors.Join(err, perr)
		t.note("%d to read", n)
	}
	if err != nil {
		t.note("peek: %s", kind(err))
	}
}

// rest reads to the end.
func (t *talk) rest() {
	h := sha256.New()
	n, err := io.Copy(h, t.TCPConn)
	t.note("rest %d %x: %s", n, h.Sum(nil)[:4], kind(err))
}

func (t *talk) half() { t.note("half-close: %s", kind(t.CloseWrite())) }

// reset closes with a RST.
func (t *talk) reset() {
	t.note("reset: %s %s", kind(t.SetLinger(0)), kind(t.Close()))
}

// fails sends until the other end is known to be gone: the first attempts may
// succeed, and which of the two errors comes depends on timing.
func (t *talk) fails() {
	for deadline := time.Now().Add(soon); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if _, err := t.Write([]byte("x")); err != nil {
			t.note("fails: %v", errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET))
			return
		}
	}
	t.note("never fails")
}

// blob is data that repeats nowhere near.
func blob(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(b)
	return b
}

// conversations are held by a client and a server; a server begins when it has
// accepted, a client when it is connected.
func conversations() map[string]struct{ client, server func(*talk) } {
	type both = struct{ client, server func(*talk) }
	return map[string]both{
		"half-close by the client": {
			func(c *talk) { c.send("ask"); c.half(); c.rest() },
			func(s *talk) { s.rest(); s.send("answer"); s.Close() },
		},
		"half-close by the server": {
			func(c *talk) { c.rest(); c.send("late"); c.half() },
			func(s *talk) { s.send("early"); s.half(); s.rest() },
		},
		"both at once": {
			func(c *talk) { c.send("a"); c.half(); c.rest() },
			func(s *talk) { s.send("b"); s.half(); s.rest() },
		},
		"reset by the client": {
			func(c *talk) { c.send("x"); c.get(1); c.reset() },
			func(s *talk) { s.get(1); s.send("y"); s.get(1); s.fails() },
		},
		"reset by the server": {
			func(c *talk) { c.send("x"); c.get(1); c.get(1); c.fails() },
			func(s *talk) { s.get(1); s.send("y"); s.reset() },
		},
		"reset after a half-close": {
			func(c *talk) { c.send("x"); c.half(); c.get(1); c.get(1) },
			func(s *talk) { s.rest(); s.send("y"); time.Sleep(50 * time.Millisecond); s.reset() },
		},
		"closed with unread input": {
			func(c *talk) { c.get(1); c.send("unread"); c.get(1) },
			func(s *talk) { s.send("x"); s.peek(); s.Close() },
		},
		"closed by a server that is written to": {
			func(c *talk) { c.rest(); c.fails() },
			func(s *talk) { s.send("bye"); s.Close() },
		},
		"closed by a client that is written to": {
			func(c *talk) { c.get(1); c.Close() },
			func(s *talk) { s.send("x"); s.get(1); s.fails() },
		},
		"nothing is said": {
			func(c *talk) { c.Close() },
			func(s *talk) { s.rest(); s.Close() },
		},
		"single bytes": {
			func(c *talk) {
				for _, b := range blob(3000) {
					if _, err := c.Write([]byte{b}); err != nil {
						c.note("%s", kind(err))
					}
				}
				c.half()
				c.rest()
			},
			func(s *talk) { b, err := io.ReadAll(s); s.note("%s", kind(err)); s.send(string(b)); s.Close() },
		},
		"zero window of the client": {
			func(c *talk) { c.get(1); time.Sleep(300 * time.Millisecond); c.rest() },
			func(s *talk) { s.send(string(blob(8 << 20))); s.Close() },
		},
		"zero window of the server": {
			func(c *talk) { c.send(string(blob(8 << 20))); c.half(); c.rest() },
			func(s *talk) { s.get(1); time.Sleep(300 * time.Millisecond); s.rest(); s.Close() },
		},
		"a slow reader": {
			func(c *talk) {
				var all bytes.Buffer
				for range 400 {
					if _, err := io.CopyN(&all, c, 1000); err != nil {
						c.note("%s", kind(err))
					}
					time.Sleep(100 * time.Microsecond)
				}
				c.note("%x", sha256.Sum256(all.Bytes()))
				c.rest()
			},
			func(s *talk) { s.send(string(blob(1 << 20))); s.Close() },
		},
		"a sender that does not read gets stuck": {
			func(c *talk) { c.stuck() },
			func(s *talk) { s.stuck() },
		},
		"messages of one byte do not wait for each other": {
			func(c *talk) { c.pingPong(200, true) },
			func(s *talk) { s.pingPong(200, false); s.Close() },
		},
	}
}

// stuck writes until the other end's window is closed for good: with both ends
// at it, only limited buffers end it.
func (t *talk) stuck() {
	_ = t.SetWriteDeadline(time.Now().Add(400 * time.Millisecond))
	n, err := t.Write(make([]byte, 64<<20))
	t.note("stuck below 32 MiB: %v, %s", n < 32<<20, kind(err))
}

// pingPong exchanges bytes. A delayed acknowledgement in the wrong place would
// cost 40 ms each time; a busy machine costs more, but not each time.
func (t *talk) pingPong(n int, first bool) {
	b, quick := []byte{1}, 0
	for i := range n {
		start := time.Now()
		if first {
			// Two writes and then a read is what Nagle's algorithm punishes.
			_, _ = t.Write(b)
			_, _ = t.Write(b)
		}
		if _, err := io.ReadFull(t, make([]byte, map[bool]int{true: 1, false: 2}[first])); err != nil {
			t.note("%s", kind(err))
			return
		}
		if !first {
			_, _ = t.Write(b)
		}
		// The first acknowledgements of a connection are never delayed.
		if i >= n/2 && time.Since(start) < 20*time.Millisecond {
			quick++
		}
	}
	t.note("fast: %v", quick > n/20)
}

// tcpRig has no Redis: the test itself is the application.
type tcpRig struct {
	*rig
	accepted chan *net.TCPConn
}

func newTCPRig(t *testing.T, kind order.Kind, edit func(*Options)) *tcpRig {
	t.Helper()
	r := &tcpRig{
		rig: newRigWith(t, kind, journal.Options{MaxBytes: 2 << 30}, func(o *Options) {
			o.ExcludePorts = []uint16{directPort}
			if edit != nil {
				edit(o)
			}
		}),
		accepted: make(chan *net.TCPConn, 10000),
	}
	for _, port := range []int{proxiedPort, directPort} {
		r.listen(fmt.Sprintf("[::]:%d", port))
	}
	return r
}

func (r *tcpRig) listen(at string) net.Listener {
	r.t.Helper()
	var l net.Listener
	nstest.In(r.t, r.app, func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(r.t.Context(), "tcp", at)
		return err
	})
	r.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.accepted <- c.(*net.TCPConn)
		}
	}()
	return l
}

func (r *tcpRig) pair(addr netip.Addr, port uint16) (client, server *net.TCPConn) {
	r.t.Helper()
	c, err := r.rig.dial(addr, port)
	require.NoError(r.t, err)
	select {
	case server = <-r.accepted:
	case <-time.After(soon):
		r.t.Fatal("not accepted")
	}
	r.t.Cleanup(func() { c.Close(); server.Close() })
	return c.(*net.TCPConn), server
}

// hold holds a conversation and returns what the ends saw.
func (r *tcpRig) hold(addr netip.Addr, port uint16, client, server func(*talk)) map[string][]string {
	r.t.Helper()
	log := &transcript{lines: map[string][]string{}}
	c, s := r.pair(addr, port)
	var wg sync.WaitGroup
	for _, end := range []struct {
		*talk
		say func(*talk)
	}{{&talk{c, log, "client"}, client}, {&talk{s, log, "server"}, server}} {
		_ = end.SetDeadline(time.Now().Add(2 * soon))
		wg.Go(func() { end.say(end.talk) })
	}
	wg.Wait()
	c.Close()
	s.Close()
	return log.lines
}

func TestConversations(t *testing.T) {
	for _, kind := range []order.Kind{order.Auto, order.Serial} {
		r := newTCPRig(t, kind, nil)
		for name, say := range conversations() {
			addrs := []netip.Addr{nstest.App4, nstest.App6} // IPv4 is mapped at the server
			if kind == order.Serial {
				addrs = addrs[1:]
			}
			for _, addr := range addrs {
				direct := r.hold(addr, directPort, say.client, say.server)
				proxied := r.hold(addr, proxiedPort, say.client, say.server)
				assert.Equal(t, direct, proxied, "%s: %s to %s", kind, name, addr)
			}
		}
		require.NotZero(t, r.proxy.Stats().Accepted)
		assert.Eventually(t, func() bool { return r.proxy.Stats().Connections == 0 }, soon, 10*time.Millisecond,
			"%s: connections are left", kind)
	}
}

// TestHundredMegabytes goes through in one connection, both ways at once.
func TestHundredMegabytes(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 200 MB")
	}
	r := newTCPRig(t, order.Auto, nil)
	data := blob(1 << 20)
	say := func(e *talk) {
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 100 {
				if _, err := e.Write(data); err != nil {
					e.note("%s", kind(err))
					return
				}
			}
			_ = e.CloseWrite()
		})
		e.rest()
		wg.Wait()
	}
	direct := r.hold(nstest.App4, directPort, say, say)
	require.Equal(t, direct, r.hold(nstest.App4, proxiedPort, say, say))
}

// TestClosedBeforeAccepted: what a client said before it went is there when the
// application gets round to accepting it.
func TestClosedBeforeAccepted(t *testing.T) {
	r := newTCPRig(t, order.Auto, nil)
	var fd int
	require.NoError(t, netns.Do(r.app, func() (err error) {
		if fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: 90}); err != nil {
			return err
		}
		return syscall.Listen(fd, 10)
	}))
	defer syscall.Close(fd)
	said := uint64(0)
	for _, reset := range []bool{false, true} {
		c, err := r.rig.dial(nstest.App4, 90)
		require.NoError(t, err)
		_, err = c.Write([]byte("said"))
		require.NoError(t, err)
		if reset {
			require.NoError(t, c.(*net.TCPConn).SetLinger(0))
		}
		said += 4
		require.Eventually(t, func() bool { return r.proxy.Stats().InBytes == said }, soon, time.Millisecond)
		time.Sleep(100 * time.Millisecond) // it goes on to the application
		require.NoError(t, c.Close())
		time.Sleep(100 * time.Millisecond)
		s, _, err := syscall.Accept(fd)
		require.NoError(t, err)
		b := make([]byte, 10)
		n, err := syscall.Read(s, b)
		require.NoError(t, err)
		require.Equal(t, "said", string(b[:n]))
		_, err = syscall.Read(s, b)
		if reset {
			require.ErrorIs(t, err, syscall.ECONNRESET)
		} else {
			require.NoError(t, err)
		}
		require.NoError(t, syscall.Close(s))
	}
}
