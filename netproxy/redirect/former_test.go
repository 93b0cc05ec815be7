package redirect_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

var (
	former4 = netip.MustParseAddr("10.77.0.9")
	former6 = netip.MustParseAddr("fd77::9")
)

func keep(t *testing.T, ns int) *redirect.Kept {
	t.Helper()
	current, err := redirect.Addresses(ns)
	if err != nil || !slices.Contains(current, nstest.App4) || !slices.Contains(current, nstest.App6) {
		t.Fatalf("addresses %v, %v", current, err)
	}
	k, err := redirect.Keep(ns, "test", redirect.Former{
		Addrs: []netip.Addr{former4, former6}, Current: current,
		Bound: []netip.AddrPort{netip.AddrPortFrom(former4, 80), netip.AddrPortFrom(former6, 80)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestFormerAddressIsReachedAtTheCurrentOne: with a redirection and without.
func TestFormerAddressIsReachedAtTheCurrentOne(t *testing.T) {
	for _, proxied := range []bool{true, false} {
		t.Run(fmt.Sprintf("proxied_%v", proxied), func(t *testing.T) {
			g := newRig(t, func(o *redirect.Options) { o.NoIncoming = !proxied })
			k := keep(t, g.app)
			for _, tc := range []struct{ listen, dial, from string }{
				{"10.77.0.9:80", "10.77.0.2:80", "10.77.0.1"},
				{"[fd77::9]:80", "[fd77::2]:80", "fd77::1"},
				{"0.0.0.0:81", "10.77.0.2:81", "10.77.0.1"},
			} {
				g.expectRefused(g.client, tc.dial)
				l := g.listen(tc.listen)
				g.expect(g.client, tc.dial, tc.from, proxied)
				if proxied && !slices.Contains(g.intercepted(), netip.MustParseAddrPort(l.Addr().String())) && l.Addr().(*net.TCPAddr).Port == 80 {
					t.Errorf("intercepted %v", g.intercepted())
				}
			}
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
			g.expectRefused(g.client, "10.77.0.2:80")
		})
	}
}

// TestFormerAddressIsBoundLater: what listens there after the resumption is reached
// at the current address, unless somebody was seen to listen at that: then the
// port stays its own, also while it is gone.
func TestFormerAddressIsBoundLater(t *testing.T) {
	for _, proxied := range []bool{true, false} {
		t.Run(fmt.Sprintf("proxied_%v", proxied), func(t *testing.T) {
			g := newRig(t, func(o *redirect.Options) { o.NoIncoming = !proxied })
			k := keep(t, g.app)
			for _, tc := range []struct{ former, current, dial, from string }{
				{"10.77.0.9:", "10.77.0.2:", "10.77.0.2:", "10.77.0.1"},
				{"[fd77::9]:", "[::]:", "[fd77::2]:", "fd77::1"},
			} {
				g.expectRefused(g.client, tc.dial+"82")
				g.listen(tc.former + "82")
				g.expect(g.client, tc.dial+"82", tc.from, proxied)

				own := g.listen(tc.current + "83")
				g.expect(g.client, tc.dial+"83", tc.from, proxied)
				own.Close()
				other := g.listen(tc.former + "83")
				if !proxied { // our listener accepts for one that is gone
					g.expectRefused(g.client, tc.dial+"83")
				}
				other.Close()
			}
			g.datagram("10.77.0.9:84", "10.77.0.2:84")
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// datagram sends one to a socket and has it answered.
func (g *rig) datagram(listen, to string) {
	g.t.Helper()
	var l net.PacketConn
	nstest.In(g.t, g.app, func() (err error) {
		l, err = net.ListenPacket("udp", listen)
		return err
	})
	defer l.Close()
	var c net.Conn
	nstest.In(g.t, g.client, func() (err error) {
		c, err = net.Dial("udp", to)
		return err
	})
	defer c.Close()
	deadline := time.Now().Add(time.Minute)
	if err := errors.Join(l.SetDeadline(deadline), c.SetDeadline(deadline)); err != nil {
		g.t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		g.t.Fatal(err)
	}
	b := make([]byte, 8)
	_, from, err := l.ReadFrom(b)
	if err != nil {
		g.t.Fatalf("no datagram has come to %s through %s: %v", listen, to, err)
	}
	if _, err := l.WriteTo([]byte("y"), from); err != nil {
		g.t.Fatal(err)
	}
	if n, err := c.Read(b); err != nil || string(b[:n]) != "y" {
		g.t.Errorf("answer %q, %v", b[:n], err)
	}
}

func TestFormerAddressLeavesAsTheCurrentOne(t *testing.T) {
	g := newRig(t, nil)
	k := keep(t, g.app)
	for _, tc := range []struct{ listen, local, from string }{
		{"10.77.0.1:90", "10.77.0.9:0", "10.77.0.2"},
		{"[fd77::1]:90", "[fd77::9]:0", "fd77::2"},
	} {
		g.listenIn(g.client, tc.listen)
		var c net.Conn
		nstest.In(t, g.app, func() (err error) {
			local, err := net.ResolveTCPAddr("tcp", tc.local)
			if err != nil {
				return err
			}
			c, err = (&net.Dialer{LocalAddr: local, Timeout: time.Minute}).Dial("tcp", tc.listen)
			return err
		})
		defer c.Close()
		if got, err := ask(c, "hello"); err != nil || got != tc.from+" hello" {
			t.Errorf("%s sees %q, %v", tc.listen, got, err)
		}
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFormerAddressIsAnothersByNow: nobody asks us for it in vain, and after
// Close it is not ours at all.
func TestFormerAddressIsAnothersByNow(t *testing.T) {
	g := newRig(t, nil)
	g.listen("0.0.0.0:80")
	k := keep(t, g.app)
	for _, to := range []string{"10.77.0.9:80", "[fd77::9]:80"} {
		err := netns.Do(g.client, func() error {
			c, err := net.DialTimeout("tcp", to, time.Second)
			if err == nil {
				c.Close()
			}
			return err
		})
		if err == nil {
			t.Errorf("the namespace answers for %s", to)
		}
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	nstest.In(t, g.app, func() error {
		for _, a := range []netip.Addr{former4, former6} {
			r, err := netlink.RouteGet(a.AsSlice())
			if err != nil {
				return err
			}
			if len(r) == 0 || r[0].Type == unix.RTN_LOCAL {
				t.Errorf("%s is still local: %v", a, r)
			}
		}
		return nil
	})
}
