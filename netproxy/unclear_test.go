package netproxy

import (
	"context"
	"fmt"
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

// TestConnectingWhileRestored: CRIU connects again what was being connected, from
// processes that nobody knows for the application's yet. It reaches the server after
// the replay, and through the proxy.
func TestConnectingWhileRestored(t *testing.T) {
	var owner atomic.Uint32
	owner.Store(uint32(redirect.Ours))
	r := newRigWith(t, order.Tracepoint, journal.Options{}, func(o *Options) {
		o.Egress = true
		o.Owns = func([]uint32) redirect.Ownership { return redirect.Ownership(owner.Load()) }
	})
	seen := make(chan string, 2)
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		seen <- c.RemoteAddr().String()
		_, _ = c.Read(make([]byte, 1)) // until it is closed
		c.Close()
	})
	idle := func(a *teller, c *net.TCPConn) { <-a.ctx.Done() }
	a := r.teller(idle)
	r.again(func() {
		a.stop()
		owner.Store(uint32(redirect.Theirs))
	})

	type dialled struct {
		net.Conn
		error
	}
	result := make(chan dialled, 1)
	go func() {
		var c net.Conn
		err := netns.Do(r.app, func() (err error) {
			c, err = net.DialTimeout("tcp", netip.AddrPortFrom(nstest.Client4, bankPort).String(), soon)
			return err
		})
		result <- dialled{c, err}
	}()
	require.Eventually(t, func() (kept bool) {
		require.NoError(t, r.proxy.do(context.Background(), "look", func() error {
			kept = len(r.proxy.egress.unclear) == 1
			return nil
		}))
		return kept
	}, soon, time.Millisecond)
	require.Empty(t, seen, "the server has heard of it")

	owner.Store(uint32(redirect.Ours))
	r.teller(idle)
	_, err := r.proxy.Replay(context.Background(), false)
	require.NoError(t, err)
	d := <-result
	require.NoError(t, d.error)
	defer d.Close()
	require.NotEqual(t, fmt.Sprint(d.LocalAddr()), <-seen, "it goes past the proxy")
}
