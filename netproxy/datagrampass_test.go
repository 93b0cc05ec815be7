package netproxy

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

// udpIn makes a socket in a namespace, bound to an address.
func udpIn(t *testing.T, ns int, addr string) *net.UDPConn {
	t.Helper()
	var c net.PacketConn
	require.NoError(t, netns.Do(ns, func() (err error) {
		c, err = net.ListenPacket("udp", addr)
		return err
	}))
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// udpTo makes a socket in a namespace that is connected to an address.
func udpTo(t *testing.T, ns int, addr netip.AddrPort) net.Conn {
	t.Helper()
	var c net.Conn
	require.NoError(t, netns.Do(ns, func() (err error) {
		c, err = net.Dial("udp", addr.String())
		return err
	}))
	t.Cleanup(func() { c.Close() })
	return c
}

// pass sends a datagram to a server and back, and reports whether it was journaled.
func (r *rig) pass(server *net.UDPConn, client net.Conn, payload []byte) bool {
	r.t.Helper()
	before := r.proxy.Stats().Datagrams
	buf := make([]byte, 1<<16)
	deadline := time.Now().Add(soon)
	require.NoError(r.t, errors.Join(server.SetDeadline(deadline), client.SetDeadline(deadline)))
	_, err := client.Write(payload)
	require.NoError(r.t, err)
	n, from, err := server.ReadFromUDPAddrPort(buf)
	require.NoError(r.t, err)
	for from.Port() != client.LocalAddr().(*net.UDPAddr).AddrPort().Port() {
		n, from, err = server.ReadFromUDPAddrPort(buf) // that was an earlier client's
		require.NoError(r.t, err)
	}
	require.True(r.t, bytes.Equal(payload, buf[:n]), "%d bytes of %d", n, len(payload))
	_, err = server.WriteToUDPAddrPort(buf[:n], from)
	require.NoError(r.t, err)
	n, err = client.Read(buf)
	require.NoError(r.t, err)
	require.True(r.t, bytes.Equal(payload, buf[:n]), "%d bytes of %d", n, len(payload))
	return r.proxy.Stats().Datagrams > before
}

// TestWhichDatagramsAreJournaled, of any size that fits.
func TestWhichDatagramsAreJournaled(t *testing.T) {
	unrecorded := make(chan string, 8)
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) {
		o.Datagrams, o.ExcludePorts = true, []uint16{5001}
		o.ExcludeSources = []netip.Prefix{netip.MustParsePrefix("10.77.0.99/32")}
		o.OnUnrecorded = func(what string) { unrecorded <- what }
		o.Owns = func(inodes []uint32) redirect.Ownership { return r5002(o.NetNS, inodes) }
	})
	r.dead.Store(uint32(Alive))
	any := udpIn(t, r.app, "[::]:5000")
	for _, addr := range []netip.Addr{nstest.App4, nstest.App6} {
		c := udpTo(t, r.client, netip.AddrPortFrom(addr, 5000))
		for _, n := range []int{0, 1, 1471, 1473, 9001, 65483} {
			require.True(t, r.pass(any, c, bytes.Repeat([]byte{'x'}, n)), "%s, %d bytes", addr, n)
		}
		largest := 65507
		if addr.Is6() {
			largest = 65527
		}
		require.False(t, r.pass(any, c, make([]byte, largest)))
		require.Contains(t, <-unrecorded, "UDP")
	}
	for what, addr := range map[string]string{"an excluded port": "[::]:5001", "another's": "[::]:5002", "an ephemeral port": "[::]:40000"} {
		s := udpIn(t, r.app, addr)
		c := udpTo(t, r.client, netip.AddrPortFrom(nstest.App4, uint16(s.LocalAddr().(*net.UDPAddr).Port)))
		require.False(t, r.pass(s, c, []byte("x")), what)
	}
	self := udpTo(t, r.app, netip.AddrPortFrom(nstest.App4, 5000))
	require.False(t, r.pass(any, self, []byte("x")), "over lo")
	server := udpIn(t, r.client, "[::]:5003")
	require.False(t, r.pass(server, udpTo(t, r.app, netip.AddrPortFrom(nstest.Client4, 5003)), []byte("x")), "the application's own question")
}

// r5002 says that all sockets are the application's but those on port 5002.
func r5002(ns int, inodes []uint32) redirect.Ownership {
	d, err := sockdiag.Open(ns)
	if err != nil {
		return redirect.Unknown
	}
	defer d.Close()
	whose := redirect.Ours
	err = d.DumpUDP(5002, func(s *sockdiag.Socket) error {
		if s.Inode == inodes[0] {
			whose = redirect.Theirs
		}
		return nil
	})
	if err != nil {
		return redirect.Unknown
	}
	return whose
}

// TestClosedUDPSocketRefuses: senders learn that nobody is there any more.
func TestClosedUDPSocketRefuses(t *testing.T) {
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) { o.Datagrams = true })
	r.dead.Store(uint32(Alive))
	s := udpIn(t, r.app, "[::]:5000")
	c := udpTo(t, r.client, netip.AddrPortFrom(nstest.App4, 5000))
	require.True(t, r.pass(s, c, []byte("x")))
	s.Close()
	for deadline := time.Now().Add(soon); ; time.Sleep(20 * time.Millisecond) {
		_, err := c.Write([]byte("x"))
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		require.NoError(t, err)
		require.True(t, time.Now().Before(deadline), "nobody says that the socket is closed")
	}
	s = udpIn(t, r.app, "[::]:5000")
	require.True(t, r.pass(s, udpTo(t, r.client, netip.AddrPortFrom(nstest.App4, 5000)), []byte("x")))
}

// TestFloodOfDatagrams: what an application does not take is dropped and not kept,
// and what it takes is in order.
func TestFloodOfDatagrams(t *testing.T) {
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) { o.Datagrams = true })
	r.dead.Store(uint32(Alive))
	s := udpIn(t, r.app, "[::]:5000")
	c := udpTo(t, r.client, netip.AddrPortFrom(nstest.App4, 5000))
	require.True(t, r.pass(s, c, []byte("x")))
	const sent = 3 * maxHeldNumber
	payload := make([]byte, 4000)
	for i := range sent {
		payload[0], payload[1] = byte(i>>8), byte(i)
		_, err := c.Write(payload)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return r.proxy.Stats().Dropped > 0 }, soon, time.Millisecond)
	last, got, journaled := -1, 0, uint64(0)
	buf := make([]byte, 1<<16)
	for {
		require.NoError(t, s.SetReadDeadline(time.Now().Add(time.Second)))
		n, err := s.Read(buf)
		if errors.Is(err, unix.EAGAIN) || isTimeout(err) {
			before := journaled
			if journaled = r.proxy.Stats().Datagrams; journaled == before {
				break
			}
			continue // the proxy is slow
		}
		require.NoError(t, err)
		require.Equal(t, len(payload), n)
		i := int(buf[0])<<8 | int(buf[1])
		require.Greater(t, i, last)
		last, got = i, got+1
	}
	st := r.proxy.Stats()
	require.Less(t, got, sent)
	require.LessOrEqual(t, uint64(got), st.Datagrams)
	require.Less(t, got*len(payload), 2*maxHeld)
	require.True(t, r.pass(s, c, []byte("x")))
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
