package redirect_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

// gate holds SYNs between our rules and TCP, when it is asked to.
type gate struct {
	*rig
	queue *nfqueue.Conn
	hold  atomic.Bool   // the next SYN
	held  chan struct{} // one is held
	open  chan struct{} // let it go
}

// Interfaces whose SYNs a gate sees.
var (
	overWire = []string{"!", "-i", "lo"}
	overLo   = []string{"-i", "lo"}
)

func newGate(t *testing.T, in []string, edit func(*redirect.Options)) *gate {
	t.Helper()
	g := &gate{rig: newRig(t, edit), held: make(chan struct{}), open: make(chan struct{})}
	var err error
	if g.queue, err = nfqueue.Open(g.app); err != nil {
		t.Fatal(err)
	}
	for _, tables := range []string{"iptables", "ip6tables"} {
		cmd := exec.Command(tables, slices.Concat([]string{"-A", "INPUT", "-p", "tcp", "--syn"}, in,
			[]string{"-j", "NFQUEUE", "--queue-num", strconv.Itoa(int(g.queue.Queue()))})...)
		nstest.In(t, g.app, func() error {
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%v: %w: %s", cmd, err, out)
			}
			return err
		})
	}
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- g.serveGate(stop) }()
	t.Cleanup(func() {
		close(stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
		g.queue.Close()
	})
	return g
}

func (g *gate) serveGate(stop chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		fds := []unix.PollFd{{Fd: int32(g.queue.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 20); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		var verr error
		err := g.queue.Receive(func(p *nfqueue.Packet) {
			if g.hold.Swap(false) {
				g.held <- struct{}{}
				<-g.open
			}
			verr = errors.Join(verr, g.queue.Verdict(p.ID, nfqueue.Accept, 0))
		})
		if err = errors.Join(err, verr); err != nil {
			return err
		}
	}
}

// connectBefore connects from ns to an address at which nobody listens when the SYN
// passes our rules, and somebody when it comes to TCP.
func (g *gate) connectBefore(ns int, to string, listen func()) (net.Conn, error) {
	g.t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	g.hold.Store(true)
	go func() {
		var r result
		r.err = netns.Do(ns, func() (err error) {
			r.c, err = net.DialTimeout("tcp", to, 20*time.Second)
			return err
		})
		done <- r
	}()
	select {
	case <-g.held:
	case <-time.After(20 * time.Second):
		g.t.Fatalf("no SYN to %s has come to the gate", to)
	}
	listen()
	g.open <- struct{}{}
	r := <-done
	if r.c != nil {
		g.t.Cleanup(func() { r.c.Close() })
		r.c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return r.c, r.err
}

// expectBefore connects so, and looks whether the connection came through the proxy.
func (g *gate) expectBefore(ns int, to, from string, proxied bool, listen func()) {
	g.t.Helper()
	before, resets := g.accepted.Load(), nstest.Counter(g.t, g.app, nstest.HandshakesReset)
	c, err := g.connectBefore(ns, to, listen)
	if err != nil {
		g.t.Fatalf("connect %s: %v", to, err)
	}
	got, err := ask(c, "hello")
	if want := from + " hello"; got != want || err != nil {
		g.t.Fatalf("%s answered %q, %v; want %q", to, got, err, want)
	}
	if (g.accepted.Load() > before) != proxied {
		g.t.Fatalf("connection to %s: proxied %v, want %v", to, !proxied, proxied)
	}
	if n := nstest.Counter(g.t, g.app, nstest.HandshakesReset) - resets; n > 0 != proxied {
		g.t.Errorf("connection to %s: %d handshakes were reset, proxied %v", to, n, proxied)
	}
}

var bothFamilies = []struct{ to, from string }{{"10.77.0.2", "10.77.0.1"}, {"[fd77::2]", "fd77::1"}}

// TestListensBehindTheRules: a SYN that has passed our rules because nobody
// listened does not become a connection that we don't know of.
func TestListensBehindTheRules(t *testing.T) {
	t.Run("whole namespace", func(t *testing.T) {
		g := newGate(t, overWire, nil)
		for _, at := range bothFamilies {
			g.expectBefore(g.client, at.to+":80", at.from, true, func() { g.listen(at.to + ":80") })
		}
		if _, err := g.connectBefore(g.client, "10.77.0.2:81", func() {}); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("nobody listens: %v, want it refused", err)
		}
	})
	t.Run("pod", func(t *testing.T) {
		o := &owner{ports: []uint16{80, 82}}
		g := newGate(t, overWire, func(opts *redirect.Options) { o.ns, opts.Owns = opts.NetNS, o.owns })
		for _, at := range bothFamilies {
			g.expectBefore(g.client, at.to+":80", at.from, true, func() { g.listen(at.to + ":80") })
			g.expectBefore(g.client, at.to+":81", at.from, false, func() { g.listen(at.to + ":81") })
		}
		o.withheld.Store(true) // it can't be told until somebody has asked
		g.expectBefore(g.client, "10.77.0.2:82", "10.77.0.1", true, func() {
			g.listen("10.77.0.2:82")
			asked := o.asked.Load()
			go func() {
				for o.asked.Load() == asked {
					time.Sleep(time.Millisecond)
				}
				o.withheld.Store(false)
			}()
		})
	})
}

// TestLoopbackBehindTheRules: the same over lo, where that is wanted.
func TestLoopbackBehindTheRules(t *testing.T) {
	o := &owner{ports: []uint16{80, 82}}
	g := newGate(t, overLo, func(opts *redirect.Options) {
		o.ns, opts.Owns, opts.Loopback = opts.NetNS, o.owns, true
	})
	for _, at := range []string{"127.0.0.1", "[::1]", "10.77.0.2"} {
		from := strings.Trim(at, "[]")
		g.expectBefore(g.app, at+":80", from, true, func() { g.listen(at + ":80") })
		g.expectBefore(g.app, at+":81", from, false, func() { g.listen(at + ":81") })
	}
	o.self.Store(true)
	g.expectBefore(g.app, "127.0.0.1:82", "127.0.0.1", false, func() { g.listen("127.0.0.1:82") })
}

// TestAnswersWithoutMark: where marks are not inherited, what the application
// answers to a leg is told from what it answers to a client.
func TestAnswersWithoutMark(t *testing.T) {
	o := &owner{ports: []uint16{80}}
	g := newGate(t, overWire, func(opts *redirect.Options) { o.ns, opts.Owns = opts.NetNS, o.owns })
	g.routeByMark()
	for _, at := range bothFamilies {
		g.expectBefore(g.client, at.to+":80", at.from, true, func() { g.listen(at.to + ":80") })
		if m := g.marks(at.to + ":80"); m[redirect.MarkSteer] > 0 {
			t.Errorf("sockets by mark: %v", m)
		}
		g.expect(g.client, at.to+":80", at.from, true)
	}
}

// TestPassesBehindTheRules: what we leave alone is left alone there, too.
func TestPassesBehindTheRules(t *testing.T) {
	for what, edit := range map[string]func(*redirect.Options){
		"excluded port": func(o *redirect.Options) { o.ExcludePorts = []uint16{80} },
		"excluded client": func(o *redirect.Options) {
			o.ExcludePrefixes = []netip.Prefix{netip.PrefixFrom(nstest.Client4, 32), netip.PrefixFrom(nstest.Client6, 128)}
		},
		"nothing incoming": func(o *redirect.Options) { o.NoIncoming = true },
	} {
		t.Run(what, func(t *testing.T) {
			g := newGate(t, overWire, edit)
			for _, at := range bothFamilies {
				g.expectBefore(g.client, at.to+":80", at.from, false, func() { g.listen(at.to + ":80") })
			}
		})
	}
	t.Run("another's transparent listener", func(t *testing.T) {
		g := newGate(t, overWire, nil)
		for _, at := range bothFamilies {
			g.expectBefore(g.client, at.to+":80", at.from, false, func() { g.listenWith(transparent, at.to+":80") })
		}
	})
}

func transparent(_, addr string, c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		if netip.MustParseAddrPort(addr).Addr().Is4() {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
		}
	})
	return errors.Join(cerr, err)
}

// TestNoneSlipsPast connects without pause while the application begins to
// listen, at one port after the other.
func TestNoneSlipsPast(t *testing.T) {
	tries := 300
	for _, at := range []struct{ app, client netip.Addr }{{nstest.App4, nstest.Client4}, {nstest.App6, nstest.Client6}} {
		for _, pod := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v pod=%v", at.app, pod), func(t *testing.T) {
				o := &owner{}
				g := newRig(t, func(opts *redirect.Options) {
					if pod {
						o.ns, opts.Owns = opts.NetNS, func([]uint32) redirect.Ownership { return redirect.Ours }
					}
				})
				var port atomic.Uint32 // at which the application is about to listen
				var connected atomic.Uint32
				clients := make(chan error, 1)
				go func() { clients <- netns.Do(g.client, func() error { return knock(at.app, &port, &connected, tries) }) }()
				past := 0
				nstest.In(t, g.app, func() error {
					for i := range tries {
						n, err := openDoor(netip.AddrPortFrom(at.app, uint16(1025+i)), time.Duration(i*37%200)*time.Microsecond, &port, &connected)
						if past += n; err != nil {
							return err
						}
					}
					return nil
				})
				if err := <-clients; err != nil {
					t.Fatal(err)
				}
				if past > 0 {
					t.Errorf("%d of %d connections went past the proxy", past, tries)
				}
			})
		}
	}
}

// firstEphemeral: the rig's legs have lower ports, clients have not.
const firstEphemeral = 32768

// openDoor listens after a while, until a client is there, and counts those that came by
// themselves. It runs on the thread of a test, in the application's namespace.
func openDoor(addr netip.AddrPort, after time.Duration, announced, connected *atomic.Uint32) (past int, err error) {
	fd, err := unix.Socket(domain(addr.Addr()), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sockaddr(addr)); err != nil {
		return 0, err
	}
	announced.Store(uint32(addr.Port()))
	for until := time.Now().Add(after); time.Now().Before(until); {
	}
	if err := unix.Listen(fd, 16); err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(time.Minute); ; {
		known := connected.Load() == uint32(addr.Port())
		c, peer, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			unix.Close(c)
			if addrPort(peer).Port() >= firstEphemeral {
				past++
			}
		case !errors.Is(err, unix.EAGAIN):
			return past, err
		case known:
			return past, nil
		case time.Now().After(deadline):
			return past, fmt.Errorf("nobody could connect to %v within a minute", addr)
		default:
			runtime.Gosched()
		}
	}
}

// knock connects to each port that is announced until it has got in.
func knock(app netip.Addr, announced, connected *atomic.Uint32, doors int) error {
	for last := uint32(0); doors > 0; {
		port := announced.Load()
		if port == last {
			runtime.Gosched()
			continue
		}
		in, err := tryDoor(netip.AddrPortFrom(app, uint16(port)))
		if err != nil {
			return err
		}
		if in {
			last = port
			connected.Store(port)
			doors--
		}
	}
	return nil
}

func tryDoor(to netip.AddrPort) (in bool, err error) {
	fd, err := unix.Socket(domain(to.Addr()), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if err = unix.Connect(fd, sockaddr(to)); errors.Is(err, unix.EINPROGRESS) {
		// A SYN that is lost is sent again after a second; this doesn't wait for it.
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(fds, 20); n == 0 || errors.Is(err, unix.EINTR) {
			return false, nil
		}
		errno, gerr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if gerr != nil {
			return false, gerr
		}
		err = nil
		if errno != 0 {
			err = unix.Errno(errno)
		}
	}
	if err != nil && !slices.Contains([]error{unix.ECONNREFUSED, unix.ECONNRESET}, err) {
		return false, err
	}
	return err == nil, nil
}

func domain(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
