package e2e

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
)

// promptly is how long an orchestrator may wait for a kill to take effect: less
// than its usual grace period, and more than a busy machine needs.
const promptly = 20 * time.Second

// TestStop: what the orchestrator asks for is never hidden.
func TestStop(t *testing.T) {
	for name, tc := range map[string]struct {
		signal string
		exit   int
	}{
		"TERM": {"SIGTERM", 143},
		"KILL": {"SIGKILL", 137},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := runApp(t, protected("checkpoint-interval", "200ms"))
			k := c.dialApp()
			c.awaitCheckpoint()
			c.ctr("task", "kill", "-s", tc.signal, c.id)
			require.Equal(t, tc.exit, c.awaitExit(promptly))
			requireEnded(t, k)
			_, row := c.row()
			require.Equal(t, "STOPPED", row)
			s := c.await("the end", func(s *status.Status) bool { return s.Phase == "stopped" })
			require.Zero(t, s.RecoveryCount)
			require.Zero(t, s.RecoveryFailed)
			require.Empty(t, s.Reason)
		})
	}
}

// requireEnded: the client's connection ends, as it would without us.
func requireEnded(t *testing.T, k *client) {
	t.Helper()
	require.NoError(t, k.conn.SetReadDeadline(time.Now().Add(patience)))
	_, err := k.r.ReadByte()
	require.Error(t, err)
	require.NotErrorIs(t, err, errTimeout)
}

// TestKillDuringRecovery: the orchestrator's kill wins over a recovery.
func TestKillDuringRecovery(t *testing.T) {
	criu := newFaultyCRIU(t)
	for name, tc := range map[string]struct {
		signal, fault string
		exit          int
	}{
		"KILL": {"SIGKILL", faultHold, 137},
		// It reaches the application when that runs again.
		"TERM": {"SIGTERM", faultSlow, 143},
	} {
		t.Run(name, func(t *testing.T) {
			c := runApp(t, protected("checkpoint-interval", "1m"))
			k := c.dialApp()
			c.checkpointAfter(func() { c.ctr("task", "exec", "--exec-id", "x", c.id, "true") })
			criu.set(tc.fault)
			cleared := sync.OnceFunc(func() { criu.clear(tc.fault) })
			defer cleared()
			// The restore that stands ready would be too fast for us.
			for _, pid := range c.criuChildren(c.status().ShimPid) {
				kill(t, pid)
			}
			c.signalInit(syscall.SIGKILL)
			c.await("a recovery under way", func(s *status.Status) bool { return s.Phase == "recovering" })
			_, row := c.row()
			require.Equal(t, "RUNNING", row)
			time.Sleep(300 * time.Millisecond)
			asked := time.Now()
			c.ctr("task", "kill", "-s", tc.signal, c.id)
			require.Equal(t, tc.exit, c.awaitExit(promptly))
			t.Logf("stopped %s after %s", time.Since(asked), tc.signal)
			requireEnded(t, k)
			cleared()
			c.ctr("task", "rm", c.id)
		})
	}
}

// TestExits: which ends are crashes.
func TestExits(t *testing.T) {
	t.Parallel()
	c := runApp(t, protected("checkpoint-interval", "500ms"))
	k := c.dialApp()
	require.Equal(t, "1", k.ask("add"))
	r := c.crashBy(func() { c.signalInit(syscall.SIGUSR1) })
	require.Equal(t, "exit status 3", r.Cause, "a failure that nobody asked for is hidden")
	require.Equal(t, "2", k.ask("add"))
	c.signalInit(syscall.SIGUSR2)
	require.Zero(t, c.awaitExit(promptly), "an orderly end is not")
	requireEnded(t, k)
}

// TestBudget: when the budget is spent, a crash is what it is without us.
func TestBudget(t *testing.T) {
	t.Parallel()
	c := redis(t, protected("checkpoint-interval", "500ms", "recovery-budget", "1/10m"))
	k := c.dial()
	c.crash()
	require.Equal(t, "1", k.do("INCR", "n"))
	c.signalInit(syscall.SIGKILL)
	require.Equal(t, 137, c.awaitExit(promptly))
	requireEnded(t, k)
	s := c.await("the reason", func(s *status.Status) bool { return s.Phase == "stopped" })
	require.Contains(t, s.Reason, "budget")
	require.False(t, s.Protected)
	require.Equal(t, 1, s.RecoveryFailed)
	require.Equal(t, 1, s.RecoveryCount)
}
