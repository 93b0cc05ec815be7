package netproxy

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// TestNodeConnections: what the node opens during a recovery waits for so long
// and no longer; others wait for its end.
func TestNodeConnections(t *testing.T) {
	const hold = time.Second
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) {
		o.Node = NodeConns{Addrs: func() []netip.Addr { return []netip.Addr{nstest.Client4} }, Hold: hold}
	})
	r.start()
	early := r.mustDial(nstest.App4)
	r.mustDial(nstest.App6)
	n, err := early.incr("n")
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	r.kill()
	require.NoError(t, r.proxy.Crash(context.Background()))
	probe, other := r.mustDial(nstest.App4), r.mustDial(nstest.App6)
	began := time.Now()
	require.NoError(t, probe.c.SetReadDeadline(began.Add(soon)))
	_, err = probe.c.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Greater(t, time.Since(began), hold/2)
	var second *redisConn
	for tries := 0; ; tries++ {
		came := time.Now()
		second = r.mustDial(nstest.App4)
		r.recover()
		if time.Since(came) < hold { // in time for the recovery
			break
		}
		require.Less(t, tries, 20, "no recovery takes less than %v", hold)
		r.kill()
		require.NoError(t, r.proxy.Crash(context.Background()))
	}
	for i, c := range []*redisConn{second, other, early} {
		n, err := c.incr("n")
		require.NoError(t, err)
		require.EqualValues(t, 2+i, n)
	}
}

// TestNodePasses: with nothing to wait for, the node is told at once.
func TestNodePasses(t *testing.T) {
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) {
		o.Node = NodeConns{Addrs: func() []netip.Addr { return []netip.Addr{nstest.Client4} }}
	})
	r.start()
	r.mustDial(nstest.App4)
	r.kill()
	require.NoError(t, r.proxy.Crash(context.Background()))
	c, err := r.dial(nstest.App4, 6379)
	if err == nil {
		defer c.Close()
		require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
		_, err = c.Read(make([]byte, 1))
	}
	require.Error(t, err)
	require.False(t, errors.Is(err, os.ErrDeadlineExceeded), "the probe had to wait")
	r.recover()
}
