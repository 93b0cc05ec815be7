package redirect_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

func TestIntercepts(t *testing.T) {
	for _, tc := range []struct{ listen, dial, from string }{
		{"0.0.0.0:80", "10.77.0.2:80", "10.77.0.1"},
		{"10.77.0.2:80", "10.77.0.2:80", "10.77.0.1"},
		{"[::]:80", "[fd77::2]:80", "fd77::1"},
		{"[::]:80", "10.77.0.2:80", "10.77.0.1"},
		{"[fd77::2]:80", "[fd77::2]:80", "fd77::1"},
	} {
		t.Run(tc.listen+"_"+tc.dial, func(t *testing.T) {
			g := newRig(t, nil)
			g.expectRefused(g.client, tc.dial) // not yet
			g.listen(tc.listen)
			g.expect(g.client, tc.dial, tc.from, true)
			g.expect(g.client, tc.dial, tc.from, true)
			if a := g.intercepted(); !slices.Equal(a, []netip.AddrPort{netip.MustParseAddrPort(tc.dial)}) {
				t.Errorf("intercepted %v", a)
			}
		})
	}
}

func TestLoopbackListenerStaysPrivate(t *testing.T) {
	g := newRig(t, nil)
	g.listen("127.0.0.1:80")
	g.listen("[::1]:80")
	g.expectRefused(g.client, "10.77.0.2:80")
	g.expectRefused(g.client, "[fd77::2]:80")
	if a := g.intercepted(); len(a) > 0 {
		t.Errorf("intercepted %v", a)
	}
	g.expect(g.app, "127.0.0.1:80", "127.0.0.1", false)
}

func TestOwnListenerIsHidden(t *testing.T) {
	g := newRig(t, nil)
	for _, to := range []string{
		fmt.Sprintf("10.77.0.2:%d", g.l.Port4), fmt.Sprintf("[fd77::2]:%d", g.l.Port6),
	} {
		g.expectRefused(g.client, to)
		g.expectRefused(g.app, to)
	}
	g.expectRefused(g.app, fmt.Sprintf("127.0.0.1:%d", g.l.Port4))
	g.expectRefused(g.app, fmt.Sprintf("[::1]:%d", g.l.Port6))
}

func TestOtherTrafficUntouched(t *testing.T) {
	g := newRig(t, nil)
	g.listen("[::]:80")
	g.expect(g.client, "10.77.0.2:80", "10.77.0.1", true)
	g.expect(g.client, "[fd77::2]:80", "fd77::1", true)
	// From the pod to itself.
	g.expect(g.app, "10.77.0.2:80", "10.77.0.2", false)
	g.expect(g.app, "[fd77::2]:80", "fd77::2", false)
	g.expect(g.app, "127.0.0.1:80", "127.0.0.1", false)
	// From the pod to the outside: listen in the client's namespace.
	g.listenIn(g.client, "[::]:81")
	g.expect(g.app, "10.77.0.1:81", "10.77.0.2", false)
	g.expect(g.app, "[fd77::1]:81", "fd77::2", false)
	udpEcho(t, g)
}

// udpEcho asks a UDP service on the intercepted port.
func udpEcho(t *testing.T, g *rig) {
	var srv net.PacketConn
	var c net.Conn
	nstest.In(t, g.app, func() (err error) {
		srv, err = net.ListenPacket("udp", "10.77.0.2:80")
		return err
	})
	defer srv.Close()
	nstest.In(t, g.client, func() (err error) {
		c, err = net.Dial("udp", "10.77.0.2:80")
		return err
	})
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	srv.SetDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 10)
	c.Write([]byte("ping"))
	n, from, err := srv.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	srv.WriteTo(buf[:n], from)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "ping" {
		t.Fatalf("UDP answer %q, %v", buf[:n], err)
	}
}

func TestExclusions(t *testing.T) {
	g := newRig(t, func(o *redirect.Options) { o.ExcludePorts = []uint16{81} })
	g.listen("[::]:80")
	g.listen("[::]:81")
	g.listen("[::]:82")
	g.expect(g.client, "10.77.0.2:81", "10.77.0.1", false)
	g.expect(g.client, "[fd77::2]:81", "fd77::1", false)
	g.expect(g.client, "10.77.0.2:80", "10.77.0.1", true)
	g.expect(g.client, "10.77.0.2:82", "10.77.0.1", true)
	if err := g.r.ExcludePort(82); err != nil {
		t.Fatal(err)
	}
	g.expect(g.client, "10.77.0.2:82", "10.77.0.1", false)

	p := newRig(t, func(o *redirect.Options) {
		o.ExcludePrefixes = []netip.Prefix{
			netip.MustParsePrefix("10.77.0.1/30"), netip.MustParsePrefix("10.77.0.4/30"), netip.MustParsePrefix("10.77.0.0/31"),
			netip.MustParsePrefix("255.0.0.0/8"), netip.MustParsePrefix("fd77::1/128"), netip.MustParsePrefix("ff00::/8"),
		}
		o.Intercept = []netip.AddrPort{netip.MustParseAddrPort("10.77.0.2:80"), netip.MustParseAddrPort("[fd77::2]:80")}
	})
	p.listen("[::]:80")
	p.expect(p.client, "10.77.0.2:80", "10.77.0.1", false)
	p.expect(p.client, "[fd77::2]:80", "fd77::1", false)
}

func TestHeldWhileDead(t *testing.T) {
	g := newRig(t, nil)
	l := g.listen("0.0.0.0:80")
	g.expect(g.client, "10.77.0.2:80", "10.77.0.1", true)
	l.Close()
	g.hold.Store(true)
	before := g.accepted.Load()
	for range 20 {
		if _, err := g.dialFrom(g.client, "10.77.0.2:80"); err != nil {
			t.Fatalf("connect to the dead application: %v", err)
		}
	}
	for deadline := time.Now().Add(time.Minute); g.accepted.Load()-before < 20 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := g.accepted.Load() - before; n != 20 {
		t.Errorf("%d connections held, want 20", n)
	}
	if err := g.r.Forget(netip.MustParseAddrPort("10.77.0.2:80"), netip.MustParseAddrPort("10.77.0.2:9")); err != nil {
		t.Fatal(err)
	}
	g.expectRefused(g.client, "10.77.0.2:80")
	if err := g.r.Intercept(netip.MustParseAddrPort("10.77.0.2:80")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.dialFrom(g.client, "10.77.0.2:80"); err != nil {
		t.Fatal(err)
	}
}

func TestCheckRepairs(t *testing.T) {
	g := newRig(t, nil)
	g.listen("0.0.0.0:80")
	c, err := g.dialFrom(g.client, "10.77.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	alive := func(repaired bool) {
		t.Helper()
		got, err := g.r.Check()
		if err != nil || got != repaired {
			t.Fatalf("Check: %v, %v; want %v", got, err, repaired)
		}
		if s, err := ask(c, "x"); err != nil || s != "10.77.0.1 x" {
			t.Fatalf("old connection: %q, %v", s, err)
		}
		g.expect(g.client, "10.77.0.2:80", "10.77.0.1", true)
	}
	alive(false)
	h := nstest.Handle(t, g.app)
	nft, err := nftables.New(nftables.WithNetNSFd(g.app))
	if err != nil {
		t.Fatal(err)
	}
	nft.FlushRuleset()
	if err := nft.Flush(); err != nil {
		t.Fatal(err)
	}
	alive(false) // the table is not theirs to flush
	nft.FlushChain(&nftables.Chain{Name: "output", Table: &nftables.Table{Name: "crsc_test", Family: nftables.TableFamilyINet}})
	if err := nft.Flush(); !errors.Is(err, unix.EPERM) {
		t.Fatalf("flush of our chain: %v", err)
	}
	alive(false)
	rules, err := h.RuleList(unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.Mark != 0 {
			if err := h.RuleDel(&r); err != nil {
				t.Fatal(err)
			}
		}
	}
	g.await(func() bool { return g.complete() })
	alive(false)
	nstest.In(t, g.app, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(lo)
	})
	g.await(func() bool { return g.complete() })
	alive(false)
}

// complete looks for the routing rule and the route of both families.
func (g *rig) complete() bool {
	g.t.Helper()
	h := nstest.Handle(g.t, g.app)
	n := 0
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := h.RuleListFiltered(f, &netlink.Rule{Table: 5210}, netlink.RT_FILTER_TABLE)
		if err != nil {
			g.t.Fatal(err)
		}
		routes, err := h.RouteListFiltered(f, &netlink.Route{Table: 5210}, netlink.RT_FILTER_TABLE)
		if err != nil {
			g.t.Fatal(err)
		}
		n += len(rules) + len(routes)
	}
	return n == 4
}

func (g *rig) await(cond func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatal("not repaired within a minute")
		}
	}
}

func TestRemoveLeavesNoTrace(t *testing.T) {
	app := nstest.New(t)
	before := state(t, app)
	l, err := redirect.Listen(app, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := redirect.Options{NetNS: app, Suffix: "a", Listener: l}
	r, err := redirect.Install(o)
	if err != nil {
		t.Fatal(err)
	}
	installed := state(t, app)
	if _, err := redirect.Install(o); !errors.Is(err, unix.EPERM) {
		t.Errorf("install of a name that is in use: %v", err)
	}
	o.Suffix = "b"
	second, err := redirect.Install(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Remove(); err != nil {
		t.Fatal(err)
	}
	if s := state(t, app); s != installed || s == before {
		t.Errorf("after the second has gone: %s\nbefore: %s", s, installed)
	}
	if err := r.Remove(); err != nil {
		t.Fatal(err)
	}
	if s := state(t, app); s != before {
		t.Errorf("after remove: %s\nbefore: %s", s, before)
	}
	if err := redirect.Uninstall(app, "a"); err != nil {
		t.Errorf("uninstall of nothing: %v", err)
	}
}

// state describes tables, rules, routes and settings of the namespace.
func state(t *testing.T, ns int) string {
	t.Helper()
	nft, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		t.Fatal(err)
	}
	chains, err := nft.ListChains()
	if err != nil {
		t.Fatal(err)
	}
	s := inherits(t, ns) + " "
	for _, c := range chains {
		s += c.Table.Name + "/" + c.Name + " "
	}
	h := nstest.Handle(t, ns)
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := h.RuleList(f)
		if err != nil {
			t.Fatal(err)
		}
		routes, err := h.RouteListFiltered(f, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		if err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprint(rules, len(routes), "; ")
	}
	return s
}

func TestOptionsRefused(t *testing.T) {
	l := &redirect.Listener{FD4: -1, FD6: -1}
	for name, o := range map[string]redirect.Options{
		"no suffix":   {Listener: l},
		"bad suffix":  {Suffix: "a b", Listener: l},
		"no listener": {Suffix: "a"},
		"bad prefix":  {Suffix: "a", Listener: l, ExcludePrefixes: []netip.Prefix{{}}},
		"bad address": {Suffix: "a", Listener: l, Intercept: []netip.AddrPort{{}}},
	} {
		if _, err := redirect.Install(o); !errors.Is(err, redirect.ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDestroySocketsAndListeners(t *testing.T) {
	g := newRig(t, nil)
	l := g.listen("0.0.0.0:80")
	c, err := g.dialFrom(g.client, "10.77.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(c, "x"); err != nil {
		t.Fatal(err)
	}
	ls, err := redirect.Listeners(g.app, g.l)
	if err != nil {
		t.Fatal(err)
	}
	if len(ls) != 1 || ls[0].Local.Port() != 80 || ls[0].Inode == 0 {
		t.Errorf("listeners %+v", ls)
	}
	l.Close()
	n, err := redirect.DestroySockets(g.app, redirect.Match{Locals: g.intercepted()})
	if err != nil || n != 1 {
		t.Errorf("destroyed %d, %v; want the application's socket alone", n, err)
	}
	// Exact tuples reach our own sockets too.
	ap := c.LocalAddr().(*net.TCPAddr).AddrPort()
	own := sockdiag.Tuple{Local: netip.MustParseAddrPort("10.77.0.2:80"), Remote: ap}
	if n, err := redirect.DestroySockets(g.app, redirect.Match{Tuples: []sockdiag.Tuple{own, own}}); err != nil || n > 1 {
		t.Errorf("destroyed %d, %v", n, err)
	}
	if n, err := redirect.DestroySockets(g.app, redirect.Match{Ports: []uint16{80}}); err != nil || n != 0 {
		t.Errorf("destroyed %d more, %v", n, err)
	}
}
