package nstest

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// Addresses of the two ends.
var (
	App4    = netip.MustParseAddr("10.77.0.2")
	App6    = netip.MustParseAddr("fd77::2")
	Client4 = netip.MustParseAddr("10.77.0.1")
	Client6 = netip.MustParseAddr("fd77::1")
)

// New makes an empty network namespace with lo up. The descriptor is closed
// when the test ends.
func New(t testing.TB) int {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: run the tests as root (testing/env/install prepares the machine)")
	}
	type made struct {
		fd  int
		err error
	}
	ch := make(chan made)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ch <- made{-1, fmt.Errorf("unshare: %w", err)}
			return
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		ch <- made{fd, err}
	}()
	m := <-ch
	if m.err != nil {
		t.Fatalf("make network namespace: %v", m.err)
	}
	t.Cleanup(func() { unix.Close(m.fd) })
	In(t, m.fd, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	return m.fd
}

// Pair makes an application's and a client's namespace joined by eth0 veths.
func Pair(t testing.TB) (app, client int) {
	t.Helper()
	app, client = New(t), New(t)
	In(t, app, func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: "eth0"},
			PeerName:      "eth0",
			PeerNamespace: netlink.NsFd(client),
		})
	})
	configure(t, app, App4, App6, Client4, Client6)
	configure(t, client, Client4, Client6, App4, App6)
	awaitLocal(t, app, App6)
	awaitLocal(t, client, Client6)
	return app, client
}

// awaitLocal waits until the kernel, which adds IPv6 addresses from a work
// queue once the link is up, delivers to addr.
func awaitLocal(t testing.TB, ns int, addr netip.Addr) {
	t.Helper()
	In(t, ns, func() error {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			r, err := netlink.RouteGet(addr.AsSlice())
			if err == nil && len(r) > 0 && r[0].Type == unix.RTN_LOCAL {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%v is still not local: %v, %v", addr, r, err)
			}
		}
	})
}

func configure(t testing.TB, ns int, v4, v6, gw4, gw6 netip.Addr) {
	t.Helper()
	In(t, ns, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		for _, a := range []string{v4.String() + "/24", v6.String() + "/64"} {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			if v6.String()+"/64" == a {
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
		}
		for _, gw := range []netip.Addr{gw4, gw6} {
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice()}); err != nil {
				return fmt.Errorf("route: %w", err)
			}
		}
		return nil
	})
}

// In runs fn in the namespace and fails the test on an error.
func In(t testing.TB, ns int, fn func() error) {
	t.Helper()
	if err := netns.Do(ns, fn); err != nil {
		t.Fatal(err)
	}
}

// Handle returns a route netlink handle of the namespace.
func Handle(t testing.TB, ns int) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(vns.NsHandle(ns), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}
