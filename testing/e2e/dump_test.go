package e2e

import (
	"errors"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/load"
)

// TestDumpFails: a dump fails on purpose; the container runs on and the
// checkpoint before serves the next crash.
func TestDumpFails(t *testing.T) {
	criu := newFaultyCRIU(t)
	c := redis(t, protected("checkpoint-interval", "200ms"))
	l := c.drive(load.Options{Connections: 10, Rate: 1000})
	for range 2 {
		good := c.awaitCheckpoint()
		failed := good.Checkpoints.Failed
		criu.set(faultFail)
		s := c.await("a failed checkpoint", func(s *status.Status) bool { return s.Checkpoints.Failed > failed })
		require.NotEmpty(t, s.Checkpoints.LastError)
		require.True(t, s.Protected, "the journal still reaches back to the last checkpoint")
		require.Equal(t, "running", s.Phase)
		last := s.Checkpoints.Last.Sequence
		// The next attempt, which comes a second after the failed one, must not be
		// good before the crash.
		r := c.crashBy(func() {
			criu.set(faultHold)
			criu.clear(faultFail)
			c.signalInit(syscall.SIGKILL)
			c.await("a recovery under way", func(s *status.Status) bool { return s.Phase == "recovering" })
			criu.clear(faultHold)
		})
		require.Equal(t, last, r.Checkpoint)
		require.Zero(t, r.Differing)
	}
	c.awaitCheckpoint()
	c.finish(l)
}

// TestDumpKilled: somebody kills CRIU in the middle of a dump.
func TestDumpKilled(t *testing.T) {
	t.Parallel()
	c := redis(t, protected("checkpoint-interval", "200ms"))
	l := c.drive(load.Options{Connections: 10, Rate: 1000})
	// The more memory, the longer a dump takes and the easier it is hit.
	require.Equal(t, "64000001", c.dial().do("SETRANGE", "ballast", "64000000", "x"))
	c.awaitCheckpoint()
	shim, err := c.e.Shim(c.id)
	require.NoError(t, err)
	pid := c.initPid()
	first := c.status().Checkpoints.Failed
	for try := 0; c.status().Checkpoints.Failed-first < 4; try++ {
		require.Less(t, try, 60, "dumps end before they are killed")
		was := c.status()
		var err error
		c.duringDump(shim, time.Duration(try*4%15)*time.Millisecond, func(pid int) { err = syscall.Kill(pid, syscall.SIGKILL) })
		if errors.Is(err, syscall.ESRCH) {
			continue // it had ended
		}
		require.NoError(t, err)
		time.Sleep(100 * time.Millisecond)
		c.awaitCheckpoint()
		// A CRIU that is killed while it runs its code inside the application can
		// take the application with it: then that crash is hidden like any other.
		if now := c.status(); now.Pid != pid {
			require.Greater(t, now.RecoveryCount, was.RecoveryCount, "the container neither runs on nor was it recovered")
			pid = now.Pid
		}
	}
	failed := c.status().Checkpoints.Failed
	require.Zero(t, c.crash().Differing)
	c.awaitCheckpoint()
	require.Zero(t, c.crash().Differing)
	require.GreaterOrEqual(t, failed, 4)
	c.finish(l)
}

// TestCrashDuringDump: the container dies while it is being dumped.
func TestCrashDuringDump(t *testing.T) {
	t.Parallel()
	c := redis(t, protected("checkpoint-interval", "200ms"))
	l := c.drive(load.Options{Connections: 10, Rate: 1000})
	k := c.dial()
	c.awaitCheckpoint()
	shim, err := c.e.Shim(c.id)
	require.NoError(t, err)
	for i := range 8 {
		require.Equal(t, strconv.Itoa(i+1), k.do("INCR", "n"))
		r := c.crashBy(func() {
			c.duringDump(shim, time.Duration(2*i)*time.Millisecond, func(int) { c.signalInit(syscall.SIGKILL) })
		})
		require.Zero(t, r.Differing)
		c.awaitCheckpoint()
	}
	require.Equal(t, "9", k.do("INCR", "n"))
	c.finish(l)
}

// TestUndumpable: an application that CRIU refuses runs, and a crash of it is
// answered by a start from the beginning as long as the journal reaches there.
func TestUndumpable(t *testing.T) {
	t.Parallel()
	c := runApp(t, protected("checkpoint-interval", "200ms"), "-mptcp")
	k := c.dialApp()
	require.Equal(t, "1", k.ask("add"))
	s := c.await("a failed checkpoint", func(s *status.Status) bool { return s.Checkpoints.Failed > 0 })
	require.NotEmpty(t, s.Checkpoints.LastError)
	require.Zero(t, s.Checkpoints.Count)
	require.Equal(t, "2", k.ask("add"))
	require.Zero(t, c.crash().Checkpoint)
	require.Equal(t, "3", k.ask("add"))
	require.Equal(t, "memory 3 file 3", k.ask("check"))
}
