package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/load"
)

// awaitCause waits for a checkpoint with a cause that begins after a time.
func (c *container) awaitCause(cause string, since time.Time) *status.Status {
	c.t.Helper()
	return c.await("a checkpoint because of "+cause, func(s *status.Status) bool {
		last := s.Checkpoints.Last
		return last != nil && last.Time.After(since) && strings.HasPrefix(last.Cause, cause)
	})
}

// TestCheckpointBeforeStop: the last checkpoint has what the application did
// until the orchestrator asked it to stop.
func TestCheckpointBeforeStop(t *testing.T) {
	t.Parallel()
	c := runApp(t, noTriggers("checkpoint-on-stop", "true"))
	require.Equal(t, "1", c.dialApp().ask("add"))
	require.Zero(t, c.status().Checkpoints.Count)
	c.ctr("task", "kill", "-s", "SIGTERM", c.id)
	require.Equal(t, 143, c.awaitExit(2*time.Second+promptly))
	s := c.await("the end", func(s *status.Status) bool { return s.Phase == "stopped" })
	require.Equal(t, 1, s.Checkpoints.Count)
	require.Equal(t, "stop (SIGTERM)", s.Checkpoints.Last.Cause)
	// It was in memory, perhaps; there it does not stay when the container has ended.
	images := filepath.Join(c.stateDir(), "checkpoints", fmt.Sprint(s.Checkpoints.Last.Sequence), "images")
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(images, "inventory.img"))
		return err == nil
	}, patience, 5*time.Millisecond)
}

// TestCheckpointBeforeStopIsBounded: a dump that hangs delays the signal by two
// seconds at most, or by what the container says, and SIGKILL not at all.
func TestCheckpointBeforeStopIsBounded(t *testing.T) {
	criu := newFaultyCRIU(t)
	c := runApp(t, noTriggers("checkpoint-on-stop", "true"))
	killed := runApp(t, noTriggers("checkpoint-on-stop", "true"))
	criu.set(faultSlow)
	defer criu.clear(faultSlow)

	begun := time.Now()
	c.ctr("task", "kill", "-s", "SIGTERM", c.id)
	took := time.Since(begun)
	require.Greater(t, took, 1500*time.Millisecond, "the dump was waited for")
	require.Less(t, took, 2*time.Second+promptly)
	require.Equal(t, 143, c.awaitExit(promptly))
	require.Zero(t, c.status().Checkpoints.Count)

	tries := 0
	for ; ; tries++ { // as below
		short := runAppBeside(t, criu, "checkpoint-on-stop", "200ms")
		begun := time.Now()
		short.ctr("task", "kill", "-s", "SIGTERM", short.id)
		took := time.Since(begun)
		require.Greater(t, took, 150*time.Millisecond, "the dump was waited for")
		require.Equal(t, 143, short.awaitExit(promptly))
		require.Zero(t, short.status().Checkpoints.Count)
		if took < 1500*time.Millisecond {
			break
		}
		require.Less(t, tries, 4, "the limit is not kept: %s", took)
	}

	for tries = 0; !killsAtOnce(t, killed); tries++ { // a busy machine is slow, but not each time
		require.Less(t, tries, 4, "SIGKILL waits for the dump")
		killed = runAppBeside(t, criu, "checkpoint-on-stop", "true")
	}
}

// runAppBeside runs another application while CRIU is not slow.
func runAppBeside(t *testing.T, criu *faultyCRIU, pairs ...string) *container {
	criu.clear(faultSlow)
	defer criu.set(faultSlow)
	return runApp(t, noTriggers(pairs...))
}

// killsAtOnce reports whether SIGKILL takes less than the dump for a SIGTERM before
// it would be waited for.
func killsAtOnce(t *testing.T, killed *container) bool {
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = killed.e.Ctr(t.Context(), "task", "kill", "-s", "SIGTERM", killed.id)
	}()
	time.Sleep(500 * time.Millisecond)
	begun := time.Now()
	// SIGKILL sets the waiting SIGTERM free, which may end the container first:
	// then there is nothing left to kill.
	out, err := killed.e.Ctr(t.Context(), "task", "kill", "-s", "SIGKILL", killed.id)
	if err != nil {
		require.ErrorContains(t, err, "process already finished", out)
	}
	took := time.Since(begun)
	require.Contains(t, []int{137, 143}, killed.awaitExit(promptly))
	<-asked
	return took < 1200*time.Millisecond
}

// TestCron: once a minute is as often as it gets.
func TestCron(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for up to a minute")
	}
	t.Parallel()
	c := redis(t, noTriggers("checkpoint-cron", "* * * * *"))
	k := c.dial()
	require.Equal(t, "1", k.do("INCR", "n"))
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		s := c.status()
		if last := s.Checkpoints.Last; last != nil {
			require.Equal(t, "cron", last.Cause)
			require.Less(t, last.Time.Second(), 15, "at the full minute, and a tenth of one at most")
			break
		}
		require.True(t, time.Now().Before(deadline), "no checkpoint")
	}
	require.NotZero(t, c.crash().Checkpoint)
	require.Equal(t, "2", k.do("INCR", "n"))
}

// TestRecoveryTarget: checkpoints come as often as the target needs them, and
// the status tells how it was kept.
func TestRecoveryTarget(t *testing.T) {
	t.Parallel()
	c := redis(t, noTriggers("recovery-target", "500ms"))
	s := c.await("the first checkpoint", func(s *status.Status) bool { return s.Checkpoints.Count > 0 })
	require.Equal(t, "recovery target", s.Checkpoints.Last.Cause)
	require.EqualValues(t, 500, s.RecoveryTarget.TargetMS)
	l := c.drive(load.Options{Connections: 20, Rate: 4000})
	within := 0
	for i := range 3 {
		before := c.status().Checkpoints.Count
		c.await("checkpoints for the target's sake", func(s *status.Status) bool {
			return s.Checkpoints.Count >= before+2 && s.Checkpoints.Last.Cause == "recovery target"
		})
		r := c.crash()
		require.Zero(t, r.Differing)
		require.NotZero(t, r.Checkpoint)
		if r.DetectMS+r.TotalMS <= 500 {
			within++
		}
		t.Logf("recovery %d: %.0f ms, expected %.0f ms; %d records", i, r.DetectMS+r.TotalMS, r.EstimateMS, r.Records)
		s := c.status().RecoveryTarget
		require.Equal(t, i+1, s.Recoveries)
		require.Equal(t, within, s.Within)
		require.NotZero(t, s.EstimateMS)
	}
	c.finish(l)
	count := c.status().Checkpoints.Count
	c.awaitQuiet()
	require.LessOrEqual(t, c.status().Checkpoints.Count, count+4, "an idle container is left alone")
}

// awaitQuiet lets everything settle that is still to come.
func (c *container) awaitQuiet() {
	c.t.Helper()
	time.Sleep(4 * time.Second)
}

// TestMemoryPressure: a checkpoint comes before the limit is reached.
func TestMemoryPressure(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	c.run("redis", noTriggers("checkpoint-on-pressure", "memory=60"), []string{fmt.Sprintf("--memory-limit=%d", 96<<20)})
	k := c.dial()
	s := c.await("a measurement", func(s *status.Status) bool { return s.Pressure != nil && s.Pressure.MemoryPercent != nil })
	require.Less(t, *s.Pressure.MemoryPercent, 60.0)
	require.NotEmpty(t, s.Pressure.StalledSource)
	require.Zero(t, s.Checkpoints.Count)
	value := strings.Repeat("0123456789abcdef", 64<<10)
	for i := range 64 {
		require.Equal(t, "OK", k.do("SET", fmt.Sprint("key", i), value))
	}
	s = c.await("a checkpoint", func(s *status.Status) bool { return s.Checkpoints.Count > 0 })
	require.Regexp(t, `^memory at \d+% of its limit$`, s.Checkpoints.Last.Cause)
	require.NotZero(t, c.crash().Checkpoint)
	require.Equal(t, value, k.do("GET", "key63"))
}

// TestMemoryStalls: a container that is limited to less memory than it works with
// is checkpointed for its waits, long before anything is killed: all of its memory
// is page cache, so that its working set is far from the limit.
func TestMemoryStalls(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	const limit, worksWith = 24 << 20, 64 << 20
	big := filepath.Join(t.TempDir(), "big")
	f, err := os.Create(big)
	require.NoError(t, err)
	defer f.Close()
	for block := bytes.Repeat([]byte("stall"), 1<<18); ; {
		_, err := f.Write(block)
		require.NoError(t, err)
		if at, err := f.Seek(0, io.SeekCurrent); err != nil || at >= worksWith {
			require.NoError(t, err)
			break
		}
	}
	// The container has to be charged for the pages that it reads.
	require.NoError(t, errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)))
	flags := []string{fmt.Sprintf("--memory-limit=%d", limit), bind(big, "/big", "ro")}
	c.run("busybox", noTriggers("checkpoint-on-pressure", "psi=2"), flags, "/bin/sh", "-c", "while :; do cat /big >/dev/null; done")
	s := c.await("a checkpoint", func(s *status.Status) bool { return s.Checkpoints.Count > 0 })
	require.Regexp(t, `^processes wait for memory \d+% of the time \((cgroup|host)\)$`, s.Checkpoints.Last.Cause)
	require.NotNil(t, s.Pressure)
	require.Contains(t, s.Checkpoints.Last.Cause, s.Pressure.StalledSource)
	require.True(t, s.Protected, s.Reason)
	require.Zero(t, s.RecoveryCount)
}

// TestUnreplayableInputs: each kind is followed by a checkpoint, and shown until
// then.
func TestUnreplayableInputs(t *testing.T) {
	t.Parallel()
	c := redis(t, protected("checkpoint-interval", "off", "checkpoint-journal-size", "off", "checkpoint-journal-records", "off"))
	s := c.status()
	require.Zero(t, s.Checkpoints.Count)
	require.Nil(t, s.UnreplayableSince)

	now := time.Now()
	c.ctr("task", "kill", "-s", "SIGHUP", c.id) // Redis ignores it
	s = c.await("the notice", func(s *status.Status) bool { return s.UnreplayableSince != nil || s.Checkpoints.Count > 0 })
	if s.UnreplayableSince != nil {
		require.WithinRange(t, *s.UnreplayableSince, now, time.Now())
		require.Equal(t, "signal SIGHUP", s.Unreplayable)
	}
	s = c.await("a checkpoint", func(s *status.Status) bool { return s.Checkpoints.Count > 0 })
	require.Equal(t, "signal SIGHUP", s.Checkpoints.Last.Cause)
	require.Nil(t, s.UnreplayableSince)
	require.Equal(t, "running", s.Phase)

	now = time.Now()
	k := c.dial()
	s = c.awaitCause("long-lived connection", now)
	require.Equal(t, 1, s.Checkpoints.Last.Connections)

	now = time.Now()
	session := c.e.Command(t.Context(), "ctr", "task", "exec", "--exec-id", "x", c.id, "sh", "-c", "redis-cli incr n </dev/null && cat")
	typed, err := session.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, session.Start())
	c.awaitCause("exec", now)
	s = c.await("the open session", func(s *status.Status) bool { return s.Unreplayable == "an exec session is open" })
	require.Equal(t, s.Checkpoints.Last.Time.Unix(), s.UnreplayableSince.Unix())
	now = time.Now()
	require.NoError(t, typed.Close())
	c.awaitCause("exec ended", now)
	require.NoError(t, session.Wait())
	c.await("the end of the session", func(s *status.Status) bool { return s.UnreplayableSince == nil })
	c.crash()
	require.Equal(t, "2", k.do("INCR", "n"), "what the exec did is not lost")
}

// TestStandardInput is input as well.
func TestStandardInput(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	args := []string{"run", "--runtime", env.RuntimeCRSC, "--with-ns", "network:" + c.pod.Path}
	for k, v := range noTriggers() {
		args = append(args, "--annotation", k+"="+v)
	}
	args = append(args, ociimage.Ref("busybox"), c.id, "cat")
	in, w := io.Pipe()
	var out buffer
	cat := c.e.Command(t.Context(), "ctr", args...)
	cat.Stdin, cat.Stdout = in, &out
	require.NoError(t, cat.Start())
	defer func() {
		w.Close()
		_ = cat.Process.Kill()
		_ = cat.Wait()
	}()
	c.await("the start", func(s *status.Status) bool { return s.Protected })
	require.Zero(t, c.status().Checkpoints.Count)
	for i := range 2 {
		line := fmt.Sprintf("line %d\n", i)
		now := time.Now()
		_, err := io.WriteString(w, line)
		require.NoError(t, err)
		c.awaitCause("standard input", now)
		require.Eventually(t, func() bool { return strings.HasSuffix(out.String(), line) }, patience, 10*time.Millisecond)
	}
	require.NotZero(t, c.crash().Checkpoint)
	requireOutput(t, "line 0\nline 1\n", out.String)
}

// TestConcurrentDumps: the node's limit holds for all its shims.
func TestConcurrentDumps(t *testing.T) {
	e := env.RequireInstance(t, instance)
	config := filepath.Join(e.Dir, "config.toml")
	before, err := os.ReadFile(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(config, append([]byte("max_concurrent_dumps = 1\n"), before...), 0o600))
	t.Cleanup(func() { require.NoError(t, os.WriteFile(config, before, 0o600)) })
	a, b := redis(t, protected("checkpoint-interval", "200ms")), redis(t, protected("checkpoint-interval", "200ms"))
	a.awaitCheckpoint()
	b.awaitCheckpoint()

	slot, err := os.Open(filepath.Join(e.StateDir, ".dump-slots", "0"))
	require.NoError(t, err)
	defer slot.Close()
	require.NoError(t, syscall.Flock(int(slot.Fd()), syscall.LOCK_EX))
	time.Sleep(300 * time.Millisecond) // the status of one that had just ended
	counts := []int{a.status().Checkpoints.Count, b.status().Checkpoints.Count}
	time.Sleep(1500 * time.Millisecond)
	require.Equal(t, counts, []int{a.status().Checkpoints.Count, b.status().Checkpoints.Count}, "all slots are taken")
	require.NoError(t, slot.Close())
	a.awaitCheckpoint()
	b.awaitCheckpoint()
	require.Zero(t, a.status().Checkpoints.Failed)
}
