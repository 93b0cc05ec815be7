package netproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

// TestUnrecordedConnection: in its second life the application opens a
// connection that it had not opened, and does not answer before that. It is
// told apart from what goes on after the replay.
func TestUnrecordedConnection(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	b := r.bank(t)
	honest := func(a *teller, c *net.TCPConn) {
		for s := bufio.NewScanner(c); s.Scan(); {
			fmt.Fprintln(c, "ok")
		}
	}
	rogue := func(a *teller, c *net.TCPConn) {
		for s := bufio.NewScanner(c); s.Scan(); {
			if u, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort)); err == nil {
				fmt.Fprintln(u, "charge")
			}
			fmt.Fprintln(c, "ok")
		}
	}
	a := r.teller(honest)
	c, err := r.dial(nstest.App4, tellerPort)
	require.NoError(t, err)
	defer c.Close()
	answers := bufio.NewReader(c)
	for range 2 {
		fmt.Fprintln(c, "x")
		_, err = answers.ReadString('\n')
		require.NoError(t, err)
	}
	r.again(a.stop)
	a = r.teller(rogue)
	_, err = r.proxy.Replay(context.Background(), false)
	require.ErrorIs(t, err, ErrDiverged)
	r.again(a.stop)
	r.teller(rogue)
	_, err = r.proxy.Replay(context.Background(), true)
	require.NoError(t, err)
	require.NotZero(t, r.proxy.Stats().Differing)
	require.Zero(t, b.opened.Load(), "the server must not see what was refused")
}

// TestOutgoingUntouched: other containers' connections pass, and so does UDP.
func TestOutgoingUntouched(t *testing.T) {
	var whose atomic.Uint32
	whose.Store(uint32(redirect.Theirs))
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) {
		o.Egress = true
		o.Owns = func([]uint32) redirect.Ownership { return redirect.Ownership(whose.Load()) }
	})
	b := r.bank(t)
	a := &teller{r: r, ctx: t.Context()}
	bankAddr := netip.AddrPortFrom(nstest.Client4, bankPort)
	charge := func() {
		c, err := a.dial(bankAddr)
		require.NoError(t, err)
		fmt.Fprintln(c, "x")
		_, err = bufio.NewReader(c).ReadString('\n')
		require.NoError(t, err)
		c.Close()
	}
	charge()
	require.Zero(t, r.proxy.Stats().Opened)
	whose.Store(uint32(redirect.Ours))
	charge()
	require.EqualValues(t, 1, r.proxy.Stats().Opened)
	require.EqualValues(t, 2, b.charged.Load())

	var server net.PacketConn
	require.NoError(t, netns.Do(r.client, func() (err error) {
		server, err = net.ListenPacket("udp", netip.AddrPortFrom(nstest.Client4, 53).String())
		return err
	}))
	defer server.Close()
	var client net.Conn
	require.NoError(t, netns.Do(r.app, func() (err error) {
		client, err = net.Dial("udp", netip.AddrPortFrom(nstest.Client4, 53).String())
		return err
	}))
	defer client.Close()
	_, err := client.Write([]byte("query"))
	require.NoError(t, err)
	buf := make([]byte, 16)
	_ = server.SetReadDeadline(time.Now().Add(soon))
	n, from, err := server.ReadFrom(buf)
	require.NoError(t, err)
	require.Equal(t, "query", string(buf[:n]))
	require.Equal(t, client.LocalAddr().String(), from.String())
}

// BenchmarkConnect measures how long the application waits for a connection to a
// server, with the interception and without.
func BenchmarkConnect(b *testing.B) {
	for name, egress := range map[string]bool{"direct": false, "intercepted": true} {
		b.Run(name, func(b *testing.B) {
			r := newRigWith(b, order.Auto, journal.Options{}, func(o *Options) { o.Egress = egress })
			r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			})
			a := &teller{r: r, ctx: b.Context()}
			for b.Loop() {
				c, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
				if err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}
