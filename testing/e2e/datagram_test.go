package e2e

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/datagrams"
)

// awaitServed waits until n more requests were answered.
func awaitServed(t testing.TB, c *datagrams.Clients, n int) {
	t.Helper()
	before := c.Served()
	for deadline := time.Now().Add(patience); c.Served() < before+n; time.Sleep(time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "%d of %d requests were answered", c.Served()-before, n)
	}
}

// TestDatagrams: of a server that takes requests by UDP and TCP, no crash loses,
// doubles or moves one.
func TestDatagrams(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	c.run("busybox", protected("checkpoint-interval", "400ms", "udp", "journal"), []string{c.mountApp()}, "/app", "-datagrams")
	c.connect(netip.AddrPortFrom(c.pod.IP4, datagrams.Port)).close()
	clients, err := datagrams.StartClients(context.Background(), c.e.Client().Path, datagrams.At(c.pod.IP4, c.pod.IP6), 12)
	require.NoError(t, err)
	for i := range 10 {
		if i%3 == 0 {
			c.awaitCheckpoint()
		}
		awaitServed(t, clients, 100)
		require.Zero(t, c.crash().Differing)
	}
	awaitServed(t, clients, 50)
	_, longest, err := clients.Stop()
	require.NoError(t, err)
	s := c.status()
	t.Logf("longest answer %s, %+v", longest, s.Datagrams)
	require.NotZero(t, s.Datagrams.Journaled)
	require.NotZero(t, s.Datagrams.Repeated)
	require.Zero(t, s.Datagrams.Dropped)
}
