package netproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
)

// sharedUDP opens a socket that others may share the port with.
func sharedUDP(t *testing.T, ns int, addr string, option int) *net.UDPConn {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 1) })
		return errors.Join(err, cerr)
	}}
	var c net.PacketConn
	require.NoError(t, netns.Do(ns, func() (err error) {
		c, err = lc.ListenPacket(context.Background(), "udp", addr)
		return err
	}))
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// echoUDP answers what comes to a socket, with the socket's name before it.
func echoUDP(wg *sync.WaitGroup, s *net.UDPConn, name string) {
	wg.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := s.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			answer := append([]byte(name+" "), b[:n]...)
			if s.RemoteAddr() != nil {
				_, _ = s.Write(answer)
			} else {
				_, _ = s.WriteToUDPAddrPort(answer, from)
			}
		}
	})
}

// askUDP sends a number of requests, one at a time, and returns who answered.
func askUDP(t *testing.T, c net.Conn, n int) map[string]int {
	t.Helper()
	by := map[string]int{}
	b := make([]byte, 1<<10)
	for i := range n {
		_, err := fmt.Fprint(c, i)
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
		m, err := c.Read(b)
		require.NoError(t, err, "request %d", i)
		var who string
		var what int
		_, err = fmt.Sscan(string(b[:m]), &who, &what)
		require.NoError(t, err)
		require.Equal(t, i, what)
		by[who]++
	}
	return by
}

// TestSharedUDPPorts: sockets that share a port get what the kernel gives to each,
// be it by hash (SO_REUSEPORT) or because one is connected, and all is journaled.
func TestSharedUDPPorts(t *testing.T) {
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) { o.Datagrams = true })
	r.dead.Store(uint32(Alive))
	const requests = 20
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	var sockets []*net.UDPConn
	for _, name := range []string{"one", "two"} {
		s := sharedUDP(t, r.app, "0.0.0.0:5000", unix.SO_REUSEPORT)
		sockets = append(sockets, s)
		echoUDP(&wg, s, name)
	}
	by := map[string]int{}
	for range 16 {
		one := askUDP(t, udpTo(t, r.client, netip.AddrPortFrom(nstest.App4, 5000)), requests)
		require.Len(t, one, 1, "a client stays with its socket")
		for who := range one {
			by[who]++
		}
	}
	require.Len(t, by, 2, "both sockets are used")

	open := sharedUDP(t, r.app, "0.0.0.0:5001", unix.SO_REUSEADDR)
	a, b := udpTo(t, r.client, netip.AddrPortFrom(nstest.App4, 5001)), udpTo(t, r.client, netip.AddrPortFrom(nstest.App4, 5001))
	own := sharedUDP(t, r.app, "10.77.0.2:5001", unix.SO_REUSEADDR)
	require.NoError(t, onFD(own, func(fd int) error {
		to := a.LocalAddr().(*net.UDPAddr).AddrPort()
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().Unmap().As4(), Port: int(to.Port())})
	}))
	sockets = append(sockets, open, own)
	answer := make([]byte, 100)
	for _, k := range []struct {
		from net.Conn
		at   *net.UDPConn
	}{{a, own}, {b, open}, {a, own}} {
		_, err := k.from.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, k.at.SetReadDeadline(time.Now().Add(soon)))
		n, err := k.at.Read(answer)
		require.NoError(t, err)
		require.Equal(t, "x", string(answer[:n]))
	}
	require.EqualValues(t, 16*requests+3, r.proxy.Stats().Datagrams)
	require.Zero(t, r.proxy.Stats().Dropped)
	for _, s := range sockets {
		s.Close()
	}
}

// TestGroupsPass: broadcasts and multicasts reach the application, and are not
// journaled.
func TestGroupsPass(t *testing.T) {
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) { o.Datagrams = true })
	r.dead.Store(uint32(Alive))
	s := sharedUDP(t, r.app, "0.0.0.0:5000", unix.SO_REUSEADDR)
	group := [4]byte{239, 7, 7, 7}
	require.NoError(t, onFD(s, func(fd int) error {
		return unix.SetsockoptIPMreq(fd, unix.SOL_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreq{Multiaddr: group, Interface: nstest.App4.As4()})
	}))
	h := nstest.Handle(t, r.client)
	eth, err := h.LinkByName("eth0")
	require.NoError(t, err)
	_, all, err := net.ParseCIDR("239.0.0.0/8")
	require.NoError(t, err)
	require.NoError(t, h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: all, Scope: netlink.SCOPE_LINK}))
	c := sharedUDP(t, r.client, "10.77.0.1:0", unix.SO_BROADCAST)
	b := make([]byte, 10)
	for _, to := range []netip.Addr{netip.AddrFrom4(group), netip.MustParseAddr("255.255.255.255"), nstest.App4} {
		before := r.proxy.Stats().Datagrams
		_, err := c.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(to, 5000))
		require.NoError(t, err, to)
		require.NoError(t, s.SetReadDeadline(time.Now().Add(soon)))
		_, err = s.Read(b)
		require.NoError(t, err, to)
		require.Equal(t, to == nstest.App4, r.proxy.Stats().Datagrams > before, to)
	}
}
