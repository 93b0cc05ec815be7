package redirect_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

// rig is an application's and a client's namespace with a redirection and a
// plain copying proxy behind it.
type rig struct {
	t           testing.TB
	app, client int
	l           *redirect.Listener
	r           *redirect.Redirect
	accepted    atomic.Int64
	legPort     atomic.Uint32
	hold        atomic.Bool // accept, but open no leg
	wg          sync.WaitGroup
	done        chan struct{}
}

func newRig(t testing.TB, edit func(*redirect.Options)) *rig {
	t.Helper()
	app, client := nstest.Pair(t)
	return newRigIn(t, app, client, "test", edit)
}

func newRigIn(t testing.TB, app, client int, suffix string, edit func(*redirect.Options)) *rig {
	t.Helper()
	g := &rig{t: t, app: app, client: client, done: make(chan struct{})}
	g.legPort.Store(20000)
	var err error
	if g.l, err = redirect.Listen(g.app, 0); err != nil {
		t.Fatal(err)
	}
	o := redirect.Options{NetNS: g.app, Suffix: suffix, Listener: g.l}
	if edit != nil {
		edit(&o)
	}
	if g.r, err = redirect.Install(o); err != nil {
		t.Fatal(err)
	}
	g.wg.Go(g.acceptLoop)
	t.Cleanup(func() {
		close(g.done)
		g.wg.Wait()
		g.r.Remove()
		g.l.Close()
	})
	return g
}

func (g *rig) acceptLoop() {
	for {
		select {
		case <-g.done:
			return
		default:
		}
		fds := []unix.PollFd{{Fd: int32(g.l.FD4), Events: unix.POLLIN}, {Fd: int32(g.l.FD6), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 20); n <= 0 {
			if err != nil && err != unix.EINTR {
				g.t.Error(err)
				return
			}
			continue
		}
		for _, p := range fds {
			fd, _, err := unix.Accept4(int(p.Fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err != nil {
				continue
			}
			g.accepted.Add(1)
			g.wg.Go(func() { g.serve(fd) })
		}
	}
}

func (g *rig) serve(fd int) {
	client := os.NewFile(uintptr(fd), "client")
	defer client.Close()
	if g.hold.Load() {
		<-g.done
		return
	}
	name, _ := unix.Getsockname(fd)
	peer, _ := unix.Getpeername(fd)
	spec := tcprepair.Spec{Client: addrPort(peer), App: addrPort(name), Mark: redirect.MarkSteer}
	spec.Client = netip.AddrPortFrom(spec.Client.Addr(), uint16(g.legPort.Add(1)))
	legFD, err := tcprepair.Dial(g.app, spec)
	if err != nil {
		g.t.Errorf("leg: %v", err)
		return
	}
	leg := os.NewFile(uintptr(legFD), "leg")
	defer leg.Close()
	stop := context.AfterFunc(doneContext(g.done), func() { client.Close(); leg.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		io.Copy(leg, client)
		unix.Shutdown(legFD, unix.SHUT_WR)
	})
	io.Copy(client, leg)
	unix.Shutdown(fd, unix.SHUT_WR)
	wg.Wait()
}

func doneContext(done <-chan struct{}) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-done; cancel() }()
	return ctx
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// listen starts an application that answers each line with the peer it sees.
func (g *rig) listen(addr string) net.Listener {
	g.t.Helper()
	return g.listenIn(g.app, addr)
}

func (g *rig) listenIn(ns int, addr string) net.Listener {
	g.t.Helper()
	var l net.Listener
	nstest.In(g.t, ns, func() (err error) {
		l, err = net.Listen("tcp", addr) // MPTCP, as Go's servers are by default
		return err
	})
	g.answer(l)
	return l
}

// listenWith is listen with a socket that control prepares.
func (g *rig) listenWith(control func(string, string, syscall.RawConn) error, addr string) {
	g.t.Helper()
	var l net.Listener
	nstest.In(g.t, g.app, func() (err error) {
		l, err = (&net.ListenConfig{Control: control}).Listen(context.Background(), "tcp", addr)
		return err
	})
	g.answer(l)
}

func (g *rig) answer(l net.Listener) {
	g.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
					fmt.Fprintf(c, "%s %s\n", host, s.Text())
				}
			}()
		}
	}()
}

func (g *rig) dialFrom(ns int, to string) (net.Conn, error) {
	var c net.Conn
	err := netns.Do(ns, func() (err error) {
		c, err = net.DialTimeout("tcp", to, time.Minute)
		return err
	})
	if err == nil {
		g.t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(time.Minute))
	}
	return c, err
}

// ask sends a line over c and returns the answer.
func ask(c net.Conn, line string) (string, error) {
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	s, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(s), err
}

// expect asks from namespace ns and checks the answer and whether it came
// through the proxy.
func (g *rig) expect(ns int, to, from string, proxied bool) {
	g.t.Helper()
	before := g.accepted.Load()
	c, err := g.dialFrom(ns, to)
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
}

func (g *rig) expectRefused(ns int, to string) {
	g.t.Helper()
	if _, err := g.dialFrom(ns, to); !errors.Is(err, unix.ECONNREFUSED) {
		g.t.Fatalf("connect %s: %v, want it refused", to, err)
	}
}

func (g *rig) intercepted() []netip.AddrPort {
	g.t.Helper()
	a, err := g.r.Intercepted()
	if err != nil {
		g.t.Fatal(err)
	}
	return a
}
