package netproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/replay"
)

const tellerPort, bankPort = 7, 9

// bank is an unprotected server in the clients' namespace: it counts the lines
// that it gets and answers each with its number.
type bank struct {
	charged, opened atomic.Int64
}

func (r *rig) bank(t testing.TB) *bank {
	t.Helper()
	b := &bank{}
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		b.opened.Add(1)
		for s := bufio.NewScanner(c); s.Scan(); {
			fmt.Fprintf(c, "%s %d\n", s.Text(), b.charged.Add(1))
		}
		c.Close()
	})
	return b
}

// listenIn serves on port of a namespace until the test ends.
func (r *rig) listenIn(ns, port int, serve func(*net.TCPConn)) {
	r.t.Helper()
	l := r.listener(ns, port)
	var wg sync.WaitGroup
	wg.Go(func() { acceptAll(l, &wg, serve) })
	r.t.Cleanup(func() { l.Close() })
}

func acceptAll(l net.Listener, wg *sync.WaitGroup, serve func(*net.TCPConn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { serve(c.(*net.TCPConn)) })
	}
}

func (r *rig) listener(ns, port int) net.Listener {
	r.t.Helper()
	var l net.Listener
	require.NoError(r.t, netns.Do(ns, func() (err error) {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	return l
}

// teller is an application that works for its clients with connections of its
// own.
type teller struct {
	r     *rig
	mu    sync.Mutex // guards conns
	conns []*net.TCPConn
	ctx   context.Context
	dead  atomic.Bool // a crashed application says nothing of what it sees of that
	stop  func()      // crash: all sockets are gone at once
}

func (r *rig) teller(serve func(t *teller, c *net.TCPConn)) *teller {
	r.t.Helper()
	a := &teller{r: r}
	var end context.CancelFunc
	a.ctx, end = context.WithCancel(context.Background())
	l := r.listener(r.app, tellerPort)
	var wg sync.WaitGroup
	wg.Go(func() {
		acceptAll(l, &wg, func(c *net.TCPConn) {
			a.own(c)
			serve(a, c)
		})
	})
	r.dead.Store(uint32(Alive))
	a.stop = sync.OnceFunc(func() {
		a.dead.Store(true)
		r.dead.Store(uint32(InitDying))
		l.Close()
		a.mu.Lock()
		for _, c := range a.conns {
			_ = c.SetLinger(0)
			c.Close()
		}
		a.conns = nil
		a.mu.Unlock()
		end() // now that nobody can be told of it
		wg.Wait()
	})
	r.t.Cleanup(func() { a.stop() })
	return a
}

func (a *teller) own(c *net.TCPConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dead.Load() { // it was opened while the others were closed
		_ = c.SetLinger(0)
		c.Close()
		return
	}
	a.conns = append(a.conns, c)
}

// dial connects from the application's namespace.
func (a *teller) dial(to netip.AddrPort) (*net.TCPConn, error) {
	var c net.Conn
	err := netns.Do(a.r.app, func() (err error) {
		c, err = (&net.Dialer{Timeout: soon}).DialContext(a.ctx, "tcp", to.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	a.own(c.(*net.TCPConn))
	return c.(*net.TCPConn), nil
}

// counter serves one client: every line costs a charge. The connection to the
// bank is opened anew after every so many.
func counter(to netip.AddrPort, every int) func(*teller, *net.TCPConn) {
	return func(a *teller, c *net.TCPConn) {
		defer c.Close()
		var b *net.TCPConn
		var answers *bufio.Reader
		n := 0
		for s := bufio.NewScanner(c); s.Scan(); n++ {
			if n%every == 0 {
				if b != nil {
					b.Close()
				}
				var err error
				if b, err = a.dial(to); err != nil {
					if !a.dead.Load() {
						fmt.Fprintf(c, "error %v\n", err)
					}
					return
				}
				answers = bufio.NewReader(b)
			}
			fmt.Fprintf(b, "charge %s\n", s.Text())
			line, err := answers.ReadString('\n')
			if err != nil {
				return // crashed
			}
			fmt.Fprintf(c, "done %s", line)
		}
	}
}

func newEgressRig(t *testing.T, kind order.Kind) *rig {
	t.Helper()
	return newRigWith(t, kind, journal.Options{}, func(o *Options) { o.Egress = true })
}

// restart crashes the teller, starts it afresh and replays everything.
func (r *rig) restart(a *teller, serve func(*teller, *net.TCPConn)) (*teller, ReplayResult) {
	r.t.Helper()
	r.again(a.stop)
	a = r.teller(serve)
	res, err := r.proxy.Replay(context.Background(), false)
	require.NoError(r.t, err)
	return a, res
}

// restartAgain is restart as the shim does it: a replay that has diverged is
// begun anew.
func (r *rig) restartAgain(a *teller, app func() func(*teller, *net.TCPConn)) (*teller, ReplayResult) {
	r.t.Helper()
	var late bool
	var last []uint32
	for try := 1; ; try++ {
		r.againBy(a.stop, func(plan *replay.Plan) {
			if late {
				plan.PutOff(last)
			}
		})
		a = r.teller(app())
		res, err := r.proxy.Replay(context.Background(), false)
		if err == nil {
			return a, res
		}
		r.t.Logf("try %d: %v", try, err)
		var crowded *CrowdedError
		if errors.As(err, &crowded) {
			late, last = true, append(last, crowded.Vain...)
		}
		if try == 8 || !errors.Is(err, ErrDiverged) && !errors.Is(err, ErrStalled) {
			r.t.Fatal(err)
		}
	}
}

// charge has clients of a counter work until stop, and counts their answers.
// While gate is held for writing no request is under way.
func (r *rig) charge(clients int, served *atomic.Int64, gate *sync.RWMutex) (stop func()) {
	r.t.Helper()
	var over atomic.Bool
	var wg sync.WaitGroup
	for i := range clients {
		c, err := r.dial(nstest.App4, tellerPort)
		require.NoError(r.t, err)
		r.t.Cleanup(func() { c.Close() })
		wg.Go(func() {
			answers := bufio.NewReader(c)
			for n := 0; !over.Load(); n++ {
				gate.RLock()
				fmt.Fprintf(c, "%d-%d\n", i, n)
				_ = c.SetReadDeadline(time.Now().Add(soon))
				line, err := answers.ReadString('\n')
				gate.RUnlock()
				var got string
				var total int
				_, serr := fmt.Sscanf(line, "done charge %s %d", &got, &total)
				if err != nil || serr != nil || got != fmt.Sprintf("%d-%d", i, n) {
					r.t.Errorf("client %d, request %d: %q, %v", i, n, line, err)
					return
				}
				served.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() {
		over.Store(true)
		wg.Wait()
	}
}

// awaitServed lets clients work for a while, each of them.
func awaitServed(t *testing.T, served *atomic.Int64, clients int) {
	t.Helper()
	before := served.Load()
	time.Sleep(150 * time.Millisecond)
	require.Eventually(t, func() bool { return served.Load() >= before+int64(clients) }, soon, time.Millisecond)
}

// TestOutgoingExactlyOnce: whatever crashes, the bank is charged once for every
// answer that a client got.
func TestOutgoingExactlyOnce(t *testing.T) {
	for name, kind := range kinds {
		for what, test := range map[string]struct {
			clients, every int
			server         netip.Addr
			pause          bool // crash between requests
		}{
			"connections that last": {8, 1 << 30, nstest.Client4, false},
			"a new one each time":   {1, 1, nstest.Client6, false},
			// Eight threads that open connections to one server at a time: which is
			// which shows in what they write.
			"in any order":         {8, 7, nstest.Client4, true},
			"crash while they are": {8, 7, nstest.Client4, false},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				r := newEgressRig(t, kind)
				b := r.bank(t)
				serve := counter(netip.AddrPortFrom(test.server, bankPort), test.every)
				a := r.teller(serve)
				var served atomic.Int64
				var gate sync.RWMutex
				stop := r.charge(test.clients, &served, &gate)
				const kills = 4
				for range kills {
					awaitServed(t, &served, test.clients)
					if test.pause {
						gate.Lock()
					}
					var res ReplayResult
					a, res = r.restart(a, serve)
					if test.pause {
						gate.Unlock()
					}
					require.Zero(t, res.Differing)
					require.Zero(t, res.Reset)
				}
				time.Sleep(100 * time.Millisecond)
				stop()
				require.Equal(t, served.Load(), b.charged.Load())
				require.GreaterOrEqual(t, served.Load(), int64(test.clients*kills))
				// As many connections as there would have been without a crash.
				require.LessOrEqual(t, b.opened.Load(), served.Load()/int64(test.every)+int64(test.clients))
			})
		}
	}
}

// TestOutgoingFailures: an application learns of a server that is not there as
// it would have, at once, in a replay too.
func TestOutgoingFailures(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	unreachable := netip.MustParseAddrPort("10.77.0.99:80") // nobody answers ARP
	serve := func(a *teller, c *net.TCPConn) {
		defer c.Close()
		for s := bufio.NewScanner(c); s.Scan(); {
			to, err := netip.ParseAddrPort(s.Text())
			if err == nil {
				_, err = a.dial(to)
			}
			fmt.Fprintln(c, err)
		}
	}
	a := r.teller(serve)
	c, err := r.dial(nstest.App4, tellerPort)
	require.NoError(t, err)
	defer c.Close()
	answers := bufio.NewReader(c)
	ask := func(to netip.AddrPort) string {
		fmt.Fprintln(c, to)
		_ = c.SetReadDeadline(time.Now().Add(soon))
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		return line
	}
	for _, addr := range []netip.Addr{nstest.Client4, nstest.Client6} {
		lost := 0
		for begun := time.Now(); ; begun = time.Now() {
			require.Contains(t, ask(netip.AddrPortFrom(addr, 1)), syscall.ECONNREFUSED.Error())
			if time.Since(begun) < 900*time.Millisecond {
				break
			}
			lost++ // or the machine is busy, but not each time
			require.Less(t, lost, 5, "SYNs are lost")
		}
	}
	require.Contains(t, ask(unreachable), syscall.EHOSTUNREACH.Error())
	a, res := r.restart(a, serve)
	require.Zero(t, res.Differing)
	require.Contains(t, ask(netip.AddrPortFrom(nstest.Client4, 1)), syscall.ECONNREFUSED.Error())
	_, res = r.restart(a, serve)
	require.Zero(t, res.Differing)
	require.EqualValues(t, 1, r.proxy.Stats().Connections)
}

// TestServerClosesFirst: all that the server has said arrives, with its end, and
// the application's half goes on.
func TestServerClosesFirst(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	got := make(chan string, 16)
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "hello")
		_ = c.CloseWrite()
		rest, err := io.ReadAll(c)
		got <- fmt.Sprintf("%s %v", rest, err)
		c.Close()
	})
	serve := func(a *teller, c *net.TCPConn) {
		defer c.Close()
		for s := bufio.NewScanner(c); s.Scan(); {
			b, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
			if err != nil {
				fmt.Fprintln(c, err)
				return
			}
			greeting, err := io.ReadAll(b)
			fmt.Fprintf(c, "%s %v\n", greeting, err)
			_, _ = io.WriteString(b, "goodbye")
			b.Close()
		}
	}
	a := r.teller(serve)
	c, err := r.dial(nstest.App4, tellerPort)
	require.NoError(t, err)
	defer c.Close()
	answers := bufio.NewReader(c)
	for range 3 {
		fmt.Fprintln(c, "go")
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "hello <nil>\n", line)
		require.Equal(t, "goodbye <nil>", <-got)
		a, _ = r.restart(a, serve)
	}
	select {
	case again := <-got:
		t.Fatalf("a replay reached the server: %q", again)
	case <-time.After(100 * time.Millisecond):
	}
}
