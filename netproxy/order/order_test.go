package order_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

const (
	lowPort  = 20000
	highPort = 24000
)

// app is an application that reads, and legs to it, over loopback.
type app struct {
	t        testing.TB
	ns       int
	listener net.Listener
	addr     netip.AddrPort
	next     uint16
	legs     tcprepair.Spec // but for its addresses
}

func newApp(t testing.TB, ns int, listen, addr string) *app {
	t.Helper()
	a := &app{t: t, ns: ns, next: lowPort, legs: tcprepair.Spec{Mark: redirect.MarkOwn}}
	nstest.In(t, ns, func() (err error) {
		a.listener, err = net.Listen("tcp", listen)
		return err
	})
	t.Cleanup(func() { a.listener.Close() })
	port := a.listener.Addr().(*net.TCPAddr).Port
	a.addr = netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port))
	return a
}

// conn is a leg with the application's end.
type conn struct {
	leg    int
	port   uint16
	app    *net.TCPConn
	fd     int // of app
	base   uint32
	sent   int
	remote netip.AddrPort
}

func (a *app) connect() *conn {
	a.t.Helper()
	c := &conn{port: a.next}
	a.next++
	var err error
	c.remote = netip.AddrPortFrom(a.addr.Addr(), c.port)
	spec := a.legs
	spec.Client, spec.App = c.remote, a.addr
	c.leg, err = tcprepair.Dial(a.ns, spec)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { unix.Close(c.leg) })
	nc, err := a.listener.Accept()
	if err != nil {
		a.t.Fatal(err)
	}
	c.app = nc.(*net.TCPConn)
	a.t.Cleanup(func() { nc.Close() })
	seqs, err := tcprepair.BaseSeqs(c.leg, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	c.base = seqs.In
	rc, err := c.app.SyscallConn()
	if err != nil {
		a.t.Fatal(err)
	}
	rc.Control(func(fd uintptr) { c.fd = int(fd) })
	return c
}

func (c *conn) send(t testing.TB, n int) {
	t.Helper()
	if m, err := unix.Write(c.leg, make([]byte, n)); m != n || err != nil {
		t.Fatalf("wrote %d of %d: %v", m, n, err)
	}
	c.sent += n
}

func open(t testing.TB, o order.Options) order.Source {
	t.Helper()
	o.LowPort, o.HighPort = lowPort, highPort
	if o.Kind == "" {
		o.Kind = order.Tracepoint
	}
	s, reason, err := order.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if reason != "" {
		t.Fatalf("fell back: %s", reason)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// poll returns the new positions on the port, as stream offsets.
func poll(t testing.TB, s order.Source, c *conn) []int {
	t.Helper()
	var out []int
	if err := s.Poll(func(e order.Event) {
		if e.LegPort != c.port {
			t.Errorf("event of port %d", e.LegPort)
		}
		out = append(out, int(e.CopiedSeq-c.base))
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

var addressing = []struct{ name, listen, addr string }{
	{"v4", "127.0.0.1:0", "127.0.0.1"},
	{"v6", "[::1]:0", "::1"},
	{"mapped", "[::]:0", "127.0.0.1"},
}

func TestEveryWayToRead(t *testing.T) {
	for _, ad := range addressing {
		t.Run(ad.name, func(t *testing.T) {
			ns := nstest.New(t)
			s := open(t, order.Options{NetNS: ns})
			a := newApp(t, ns, ad.listen, ad.addr)
			c := a.connect()
			last := func(what string, want int) {
				t.Helper()
				got := poll(t, s, c)
				if len(got) == 0 || got[len(got)-1] != want {
					t.Fatalf("%s: positions %v, want the last to be %d", what, got, want)
				}
				for i := 1; i < len(got); i++ {
					if got[i] <= got[i-1] {
						t.Errorf("%s: positions %v do not grow", what, got)
					}
				}
				if q, err := s.Consumed(order.Track{App: a.addr, Leg: c.remote, Origin: c.base}); err != nil || int(q-c.base) != want {
					t.Errorf("%s: Consumed says %d, %v; want %d", what, int(q-c.base), err, want)
				}
			}
			c.send(t, 100)
			if got := poll(t, s, c); len(got) > 0 {
				t.Fatalf("nothing was read, but %v", got)
			}
			buf := make([]byte, 1<<20)
			for i := 10; i <= 100; i += 10 {
				unix.Read(c.fd, buf[:10])
				last("small reads", i)
			}
			c.send(t, 50)
			if n, _, err := unix.Recvfrom(c.fd, buf, unix.MSG_PEEK); n != 50 || err != nil {
				t.Fatal(n, err)
			}
			if got := poll(t, s, c); len(got) == 0 || got[len(got)-1] != 100 {
				t.Fatalf("peek: %v, want the position repeated", got)
			}
			unix.Read(c.fd, buf[:50])
			last("after peek", 150)
			for range 20 { // several segments, one recv
				c.send(t, 1000)
			}
			if n, err := unix.Read(c.fd, buf); n != 20000 || err != nil {
				t.Fatal(n, err)
			}
			last("many segments", 20150)
			c.send(t, 5000)
			var p [2]int
			if err := unix.Pipe2(p[:], 0); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(p[0])
			defer unix.Close(p[1])
			if n, err := unix.Splice(c.fd, nil, p[1], nil, 5000, 0); n != 5000 || err != nil {
				t.Fatal(n, err)
			}
			last("splice", 25150)
			c.send(t, 300)
			if n, _, err := unix.Recvfrom(c.fd, buf[:300], unix.MSG_TRUNC); n != 300 || err != nil {
				t.Fatal(n, err)
			}
			last("truncating read", 25450)
			// Our own reading of the application's output is no event.
			unix.Write(c.fd, buf[:2000])
			if n, err := unix.Read(c.leg, buf); n != 2000 || err != nil {
				t.Fatal(n, err)
			}
			if got := poll(t, s, c); len(got) > 0 {
				t.Errorf("reading the leg gave %v", got)
			}
		})
	}
}

// TestOrderAcrossConnections reads from many connections at random and expects
// exactly that order.
func TestOrderAcrossConnections(t *testing.T) {
	ns := nstest.New(t)
	s := open(t, order.Options{NetNS: ns})
	a := newApp(t, ns, "127.0.0.1:0", "127.0.0.1")
	conns := make([]*conn, 50)
	for i := range conns {
		conns[i] = a.connect()
		conns[i].send(t, 2000)
	}
	type step struct {
		port uint16
		at   int
	}
	var want, got []step
	taken := map[uint16]int{}
	base := map[uint16]uint32{}
	buf, rng := make([]byte, 7), rand.New(rand.NewPCG(1, 1))
	for len(want) < 5000 {
		c := conns[rng.IntN(len(conns))]
		n, err := unix.Read(c.fd, buf)
		if err == unix.EAGAIN {
			continue
		}
		taken[c.port] += n
		base[c.port] = c.base
		want = append(want, step{c.port, taken[c.port]})
	}
	if err := s.Poll(func(e order.Event) {
		got = append(got, step{e.LegPort, int(e.CopiedSeq - base[e.LegPort])})
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d events, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("event %d is %v, want %v", i, got[i], want[i])
		}
	}
}

func TestForeignSocketsAreSilent(t *testing.T) {
	ns, other := nstest.New(t), nstest.New(t)
	s := open(t, order.Options{NetNS: ns})
	b := newApp(t, other, "127.0.0.1:0", "127.0.0.1")
	c := b.connect() // a leg's port, but another namespace
	c.send(t, 10)
	unix.Read(c.fd, make([]byte, 10))
	a := newApp(t, ns, "127.0.0.1:0", "127.0.0.1")
	a.next = 30000 // our namespace, but no leg's port
	d := a.connect()
	d.send(t, 10)
	unix.Read(d.fd, make([]byte, 10))
	if got := poll(t, s, c); len(got) > 0 {
		t.Errorf("events %v", got)
	}
}

// TestLegsAreSilent: a leg that has its other end's mark is told by its priority,
// also where the application's port is one that legs may have.
func TestLegsAreSilent(t *testing.T) {
	ns := nstest.New(t)
	s := open(t, order.Options{NetNS: ns})
	a := newApp(t, ns, fmt.Sprintf("127.0.0.1:%d", highPort), "127.0.0.1")
	for _, priority := range []int{redirect.LegPriority, 0} {
		a.legs = tcprepair.Spec{Mark: redirect.MarkSteer, Priority: priority}
		c := a.connect()
		c.app.Write(make([]byte, 10))
		if n, err := unix.Read(c.leg, make([]byte, 20)); n != 10 {
			t.Fatalf("the leg got %d bytes, %v", n, err)
		}
		events := 0
		if err := s.Poll(func(order.Event) { events++ }); err != nil {
			t.Fatal(err)
		}
		if silent := priority != 0; silent != (events == 0) {
			t.Errorf("priority %#x: %d events", priority, events)
		}
	}
}

func TestOverflowIsAnError(t *testing.T) {
	ns := nstest.New(t)
	s := open(t, order.Options{NetNS: ns, RingBytes: 4096})
	a := newApp(t, ns, "127.0.0.1:0", "127.0.0.1")
	c := a.connect()
	c.send(t, 1000)
	buf := make([]byte, 1)
	for range 1000 {
		unix.Read(c.fd, buf)
	}
	n := 0
	if err := s.Poll(func(order.Event) { n++ }); !errors.Is(err, order.ErrOrderLost) {
		t.Fatalf("Poll: %v, want ErrOrderLost", err)
	}
	if n == 0 || n >= 1000 {
		t.Errorf("%d events", n)
	}
	c.send(t, 1)
	unix.Read(c.fd, buf)
	if got := poll(t, s, c); len(got) != 1 || got[0] != 1001 {
		t.Errorf("after the overflow: %v", got)
	}
}

// TestRingWraps reads and polls at the same time, many times round a small ring.
func TestRingWraps(t *testing.T) {
	ns := nstest.New(t)
	s := open(t, order.Options{NetNS: ns, RingBytes: 4096})
	a := newApp(t, ns, "127.0.0.1:0", "127.0.0.1")
	c := a.connect()
	at := 0
	buf := make([]byte, 1)
	for range 200 {
		c.send(t, 100)
		for range 100 {
			unix.Read(c.fd, buf)
		}
		for _, p := range poll(t, s, c) {
			if at++; p != at {
				t.Fatalf("position %d, want %d", p, at)
			}
		}
	}
	if at != 20000 {
		t.Fatalf("%d events, want 20000", at)
	}
}

// TestConcurrentReaders polls while two goroutines read: per connection every
// position arrives, in order.
func TestConcurrentReaders(t *testing.T) {
	ns := nstest.New(t)
	s := open(t, order.Options{NetNS: ns})
	a := newApp(t, ns, "127.0.0.1:0", "127.0.0.1")
	const total = 20000
	last := map[uint16]int{}
	base := map[uint16]uint32{}
	var wg sync.WaitGroup
	for range 2 {
		c := a.connect()
		base[c.port] = c.base
		c.send(t, total)
		wg.Go(func() {
			for buf := make([]byte, 1); ; {
				if n, _ := unix.Read(c.fd, buf); n != 1 {
					return
				}
			}
		})
	}
	deadline := time.Now().Add(20 * time.Second)
	done := func() bool {
		for p := range base {
			if last[p] != total {
				return false
			}
		}
		return true
	}
	for !done() && time.Now().Before(deadline) {
		if err := s.Poll(func(e order.Event) {
			at := int(e.CopiedSeq - base[e.LegPort])
			if at != last[e.LegPort]+1 {
				t.Errorf("port %d went from %d to %d", e.LegPort, last[e.LegPort], at)
			}
			last[e.LegPort] = at
		}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if !done() {
		t.Errorf("positions %v, want %d each", last, total)
	}
}

func TestSerialConsumed(t *testing.T) {
	for _, ad := range addressing {
		t.Run(ad.name, func(t *testing.T) {
			ns := nstest.New(t)
			s := open(t, order.Options{NetNS: ns, Kind: order.Serial})
			if !s.Serial() {
				t.Error("not serial")
			}
			a := newApp(t, ns, ad.listen, ad.addr)
			c := a.connect()
			tr := order.Track{App: a.addr, Leg: c.remote, Origin: c.base}
			buf := make([]byte, 30000)
			for i := range 20 {
				c.send(t, 1500)
				if q, err := s.Consumed(tr); err != nil || int(q-c.base) != i*1500 {
					t.Fatalf("before the read: %d, %v", int(q-c.base), err)
				}
				unix.Read(c.fd, buf)
				if q, err := s.Consumed(tr); err != nil || int(q-c.base) != (i+1)*1500 {
					t.Fatalf("after the read: %d, %v", int(q-c.base), err)
				}
			}
			tr.Leg = netip.AddrPortFrom(tr.Leg.Addr(), 9)
			if _, err := s.Consumed(tr); !errors.Is(err, order.ErrGone) {
				t.Errorf("absent socket: %v", err)
			}
		})
	}
}

func TestOpenOptions(t *testing.T) {
	ns := nstest.New(t)
	for name, o := range map[string]order.Options{
		"kind":  {NetNS: ns, Kind: "x", LowPort: 1, HighPort: 2},
		"ports": {NetNS: ns, LowPort: 3, HighPort: 2},
		"ring":  {NetNS: ns, LowPort: 1, HighPort: 2, RingBytes: 5000},
	} {
		if _, _, err := order.Open(o); !errors.Is(err, order.ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
