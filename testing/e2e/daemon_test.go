package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
)

// answers asks all that a daemon or an operator asks of a running task.
func (c *container) answers(when string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	_, row := c.row()
	require.Equal(c.t, "RUNNING", row, when)
	for _, args := range [][]string{{"task", "ps", c.id}, {"task", "metrics", c.id}} {
		out, err := c.e.Ctr(ctx, args...)
		require.NoError(c.t, err, "%s: %q", when, args)
		require.Regexp(c.t, `\d`, out, "%s: %q", when, args)
	}
}

// TestDaemonDiesDuringRecovery: a daemon that is killed and started again while a
// container is being recovered finds its task, and the recovery does not care. All
// the while, and during a checkpoint, the task answers.
func TestDaemonDiesDuringRecovery(t *testing.T) {
	criu := newFaultyCRIU(t)
	c := runApp(t, noTriggers())
	k := c.dialApp()
	require.Equal(t, "1", k.ask("add"))
	shim := c.status().ShimPid

	criu.set(faultHold)
	made := make(chan error, 1)
	go func() {
		out, err := c.e.Command(context.Background(), "crsc", "checkpoint", c.id).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		made <- err
	}()
	require.Eventually(t, func() bool { return len(childrenOf(shim)) > 1 }, patience, 5*time.Millisecond, "no checkpoint begins")
	c.answers("during a checkpoint")
	criu.clear(faultHold)
	require.NoError(t, <-made)
	require.Equal(t, "2", k.ask("add"))

	log := filepath.Join(c.e.Dir, "containerd.log")
	before, err := os.Stat(log)
	require.NoError(t, err)
	criu.set(faultHold)
	for _, pid := range c.criuChildren(shim) { // the restore that stands ready
		kill(t, pid)
	}
	c.signalInit(syscall.SIGKILL)
	c.await("a recovery under way", func(s *status.Status) bool { return s.Phase == "recovering" })
	c.answers("during a recovery")
	require.NoError(t, c.e.RestartDaemon(t.Context(), true))
	c.answers("after the daemon's restart, during a recovery")
	require.Equal(t, "recovering", c.status().Phase, "the restart was to fall into it")
	criu.clear(faultHold)
	c.awaitRecovery(1)
	c.answers("after the recovery")
	require.Equal(t, "3", k.ask("add"), "the same connection")
	require.Equal(t, shim, c.status().ShimPid)
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	since := string(text[min(before.Size(), int64(len(text))):])
	require.NotContains(t, since, "cleaning leaked shim process")
	require.NotContains(t, since, "cleaning up dead shim")

	c.ctr("task", "kill", "-s", "SIGTERM", c.id)
	require.Equal(t, 143, c.awaitExit(patience), "the daemon that was started hears of the end")
}
