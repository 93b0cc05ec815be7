package e2e

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/egress"
)

// bankAndTeller runs a bank, and nginx as its teller in a container.
func bankAndTeller(t testing.TB, a annotations) (*container, *egress.WebBank) {
	t.Helper()
	c := newContainer(t)
	bank, err := egress.OpenWebBank(c.e.Client().Path, c.pod.ClientIP4)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bank.Close()) })
	c.run("nginx", a, nil, egress.Command(egress.Conf(egress.Target(c.pod.ClientIP4)))...)
	return c, bank
}

// startClients waits until the teller serves.
func (c *container) startClients(n int) *egress.Clients {
	c.t.Helper()
	target := netip.AddrPortFrom(c.pod.IP4, 80)
	c.connect(target).close()
	clients, err := egress.StartClients(context.Background(), c.e.Client().Path, target, n)
	require.NoError(c.t, err)
	return clients
}

// TestEgressExactlyOnce: each request that the application makes to another
// server is made once, in checkpoints and crashes.
func TestEgressExactlyOnce(t *testing.T) {
	t.Parallel()
	c, bank := bankAndTeller(t, protected("checkpoint-interval", "500ms"))
	clients := c.startClients(10)
	c.awaitCheckpoint()
	for range 4 {
		time.Sleep(300 * time.Millisecond)
		r := c.crash()
		require.Zero(t, r.Differing)
		require.Zero(t, r.Reset)
	}
	time.Sleep(200 * time.Millisecond)
	served, _, errs := clients.Stop()
	require.Empty(t, errs)
	charged, doubled := bank.Charged()
	require.NotZero(t, served)
	require.Equal(t, served, charged)
	require.Zero(t, doubled)
}

// TestEgressFromTheStart: without a checkpoint all is replayed, and nothing
// reaches the server again.
func TestEgressFromTheStart(t *testing.T) {
	t.Parallel()
	c, bank := bankAndTeller(t, noTriggers())
	clients := c.startClients(3)
	time.Sleep(300 * time.Millisecond)
	require.Zero(t, c.crash().Reset)
	served, _, errs := clients.Stop()
	require.Empty(t, errs)
	charged, doubled := bank.Charged()
	require.Equal(t, served, charged)
	require.Zero(t, doubled)
}

// TestInterceptIsOff: what is not intercepted passes untouched, and is reset
// after a crash rather than left to hang.
func TestInterceptIsOff(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"off", "egress", "ingress"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := redis(t, protected("intercept", mode, "checkpoint-interval", "500ms"))
			k := c.dial()
			require.Equal(t, "1", k.do("INCR", "n"))
			wanted := 0
			if mode == "ingress" {
				wanted = 1
			}
			c.awaitCheckpoint()
			// On a busy machine it took several attempts to connect.
			s := c.await("a checkpoint of what is intercepted", func(s *status.Status) bool { return s.Checkpoints.Last.Connections == wanted })
			require.True(t, s.Protected)
			c.crash()
			if mode == "ingress" {
				require.Equal(t, "2", k.do("INCR", "n"))
				return
			}
			_, err := k.try("INCR", "n")
			require.Error(t, err, "the connection has missed a crash")
			k = c.dial()
			require.Equal(t, "2", k.do("INCR", "n"), "the checkpoint's state lives on")
			require.Equal(t, 1, strings.Count(k.do("CLIENT", "LIST"), " addr="), "the old connection is gone on both sides")
			c.await("the next checkpoint", func(now *status.Status) bool {
				return now.Checkpoints.Count > s.Checkpoints.Count
			})
		})
	}
}
