package netproxy

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// router makes the clients' namespace a router that knows that these networks
// cannot be reached, and why. For others it has no route.
func (r *rig) router(kinds map[string]int) {
	r.t.Helper()
	nstest.In(r.t, r.client, func() error {
		for file, value := range map[string]string{
			"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
			// Each test asks for more than one such answer.
			"ipv4/icmp_ratelimit": "0", "ipv4/icmp_msgs_per_sec": "100000", "ipv6/icmp/ratelimit": "0",
		} {
			err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) { // some are the host's
				return err
			}
		}
		return nil
	})
	h := nstest.Handle(r.t, r.client)
	for _, gw := range []netip.Addr{nstest.App4, nstest.App6} {
		any4 := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
		if gw.Is6() {
			any4 = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
		}
		require.NoError(r.t, h.RouteDel(&netlink.Route{Dst: any4, Gw: gw.AsSlice()}))
	}
	for network, kind := range kinds {
		_, dst, err := net.ParseCIDR(network)
		require.NoError(r.t, err)
		require.NoError(r.t, h.RouteAdd(&netlink.Route{Dst: dst, Type: kind}), network)
	}
}

// TestSameErrors: a connect that fails does so with the error that it has without
// us, live and in a replay.
func TestSameErrors(t *testing.T) {
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) {
		o.Egress, o.ExcludeServerPorts = true, []uint16{directPort}
	})
	r.router(map[string]int{
		"192.0.2.0/24": unix.RTN_UNREACHABLE, "2001:db8:1::/64": unix.RTN_UNREACHABLE,
		"198.51.100.0/24": unix.RTN_PROHIBIT, "2001:db8:2::/64": unix.RTN_PROHIBIT,
	})
	serve := func(a *teller, c *net.TCPConn) {
		defer c.Close()
		for s := bufio.NewScanner(c); s.Scan(); {
			to, err := netip.ParseAddrPort(s.Text())
			if err == nil {
				_, err = a.dial(to)
			}
			var errno syscall.Errno
			errors.As(err, &errno)
			fmt.Fprintf(c, "%d %v\n", errno, err)
		}
	}
	a := r.teller(serve)
	c, err := r.dial(nstest.App4, tellerPort)
	require.NoError(t, err)
	defer c.Close()
	answers := bufio.NewReader(c)
	ask := func(addr string, port uint16) (errno syscall.Errno) {
		fmt.Fprintln(c, netip.AddrPortFrom(netip.MustParseAddr(addr), port))
		_ = c.SetReadDeadline(time.Now().Add(soon))
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		_, err = fmt.Sscan(line, &errno)
		require.NoError(t, err, line)
		require.NotZero(t, errno, "%s: %s", addr, line)
		return errno
	}
	want := map[string]syscall.Errno{
		nstest.Client4.String(): syscall.ECONNREFUSED, nstest.Client6.String(): syscall.ECONNREFUSED,
		"192.0.2.1": syscall.EHOSTUNREACH, "2001:db8:1::1": syscall.ENETUNREACH,
		"198.51.100.1": syscall.EHOSTUNREACH, "2001:db8:2::1": syscall.EACCES,
		"203.0.113.1": syscall.ENETUNREACH, "2001:db8:3::1": syscall.ENETUNREACH,
	}
	for addr, errno := range want {
		require.Equal(t, errno, ask(addr, directPort), "%s directly", addr)
		require.Equal(t, errno, ask(addr, proxiedPort), "%s", addr)
	}
	require.EqualValues(t, len(want), r.proxy.Stats().Opened)
	_, res := r.restart(a, serve)
	require.Zero(t, res.Differing, "the errors are in what the client was told")
	require.Zero(t, res.Reset)
	require.Equal(t, syscall.ENETUNREACH, ask("203.0.113.1", proxiedPort))
}
