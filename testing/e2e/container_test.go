package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// patience bounds the wait for what takes well under a second when all is well.
const patience = time.Minute

// annotations of a container that is protected.
type annotations map[string]string

// protected returns the annotations of a protected container, without a limit
// to its recoveries; pairs are further keys, without the prefix, and values.
func protected(pairs ...string) annotations {
	a := annotations{"crsc.io/checkpoint-restore": "true", "crsc.io/recovery-budget": "unlimited"}
	for i := 0; i < len(pairs); i += 2 {
		a["crsc.io/"+pairs[i]] = pairs[i+1]
	}
	return a
}

// noTriggers: there is no checkpoint unless something cannot be replayed. That a
// connection lasts is none of it.
func noTriggers(pairs ...string) annotations {
	return protected(append([]string{
		"checkpoint-interval", "off", "checkpoint-journal-size", "off", "checkpoint-journal-records", "off",
		"checkpoint-unreplayable", "exec,signal,stdin",
	}, pairs...)...)
}

// container is a container of one test.
type container struct {
	t   testing.TB
	e   *env.Env
	pod *env.Netns
	id  string
}

// newContainer names a container and makes its pod's network.
func newContainer(t testing.TB) *container {
	t.Helper()
	return newContainerOn(t, env.RequireInstance(t, instance))
}

// newContainerOn is newContainer on another machine.
func newContainerOn(t testing.TB, e *env.Env) *container {
	t.Helper()
	c := &container{t: t, e: e, pod: e.NewPod(t), id: env.UniqueName(t)}
	e.RemoveContainer(t, c.id)
	t.Cleanup(c.tellFailure)
	return c
}

// run runs the container with its pod's network.
func (c *container) run(image string, a annotations, flags []string, args ...string) *container {
	c.t.Helper()
	require.NoError(c.t, c.tryRun(image, a, flags, args...), "ctr run")
	return c
}

func (c *container) tryRun(image string, a annotations, flags []string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return c.e.Run(ctx, env.Container{
		ID: c.id, Image: ociimage.Ref(image), Annotations: a, Netns: c.pod.Path, Flags: flags, Args: args,
	})
}

// redis runs a Redis and waits until it serves.
func redis(t testing.TB, a annotations, args ...string) *container {
	t.Helper()
	c := newContainer(t).run("redis", a, nil, args...)
	c.dial().close()
	return c
}

// runApp runs the test application and waits until it serves. The program is
// mounted read-only.
func runApp(t testing.TB, a annotations, args ...string) *container {
	t.Helper()
	c := newContainer(t)
	c.run("busybox", a, []string{c.mountApp()}, append([]string{"/app"}, args...)...)
	c.dialApp().close()
	return c
}

func (c *container) mountApp() string {
	return "--mount=type=bind,src=" + appFile(c.e) + ",dst=/app,options=rbind:ro"
}

// ctr runs ctr and returns what it prints.
func (c *container) ctr(args ...string) string {
	c.t.Helper()
	return c.e.MustCtr(c.t, args...)
}

// row is the container's line of `ctr task ls`.
func (c *container) row() (pid int, status string) {
	c.t.Helper()
	pid, status, err := c.e.Task(context.Background(), c.id)
	require.NoError(c.t, err)
	return pid, status
}

// readStatus reads the status file; ok is false while there is none.
func (c *container) readStatus() (s *status.Status, ok bool) {
	c.t.Helper()
	s, err := status.Read(c.stateDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
	require.NoError(c.t, err)
	return s, true
}

func (c *container) status() *status.Status {
	c.t.Helper()
	s, ok := c.readStatus()
	require.True(c.t, ok, "no status file of %s", c.id)
	return s
}

// await waits until the status satisfies a condition, and returns it.
func (c *container) await(what string, cond func(*status.Status) bool) *status.Status {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		s, ok := c.readStatus()
		if ok && cond(s) {
			return s
		}
		if time.Now().After(deadline) {
			if ok {
				c.dumpGoroutines(s.ShimPid)
			}
			require.FailNow(c.t, "waited for "+what, "status is %+v", s)
		}
	}
}

// awaitCheckpoint waits for a checkpoint that begins from now on.
func (c *container) awaitCheckpoint() *status.Status {
	c.t.Helper()
	now := time.Now()
	return c.await("a checkpoint", func(s *status.Status) bool {
		return s.Checkpoints.Last != nil && s.Checkpoints.Last.Time.After(now)
	})
}

// checkpointAfter does something that is a reason for a checkpoint, and waits for
// one that begins then.
func (c *container) checkpointAfter(reason func()) *status.Status {
	c.t.Helper()
	now := time.Now()
	reason()
	return c.await("a checkpoint", func(s *status.Status) bool {
		return s.Checkpoints.Last != nil && s.Checkpoints.Last.Time.After(now)
	})
}

// initPid is the init's pid, made sure to be the container's.
func (c *container) initPid() int {
	c.t.Helper()
	pid := c.task().pid
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	require.NoError(c.t, err)
	require.Contains(c.t, string(groups), "/"+c.id, "pid %d is not in the container's cgroup", pid)
	return pid
}

// signalInit sends a signal as a bug would: past the orchestrator.
func (c *container) signalInit(sig syscall.Signal) {
	c.t.Helper()
	require.NoError(c.t, syscall.Kill(c.initPid(), sig))
}

// crash kills the init and waits until the container has been recovered.
func (c *container) crash() status.Recovery {
	c.t.Helper()
	return c.crashBy(func() { c.signalInit(syscall.SIGKILL) })
}

// crashBy does something deadly and waits for the recovery.
func (c *container) crashBy(deadly func()) status.Recovery {
	c.t.Helper()
	before := c.status().RecoveryCount
	deadly()
	return c.awaitRecovery(before + 1)
}

// awaitRecovery waits until there have been n, and returns the last.
func (c *container) awaitRecovery(n int) status.Recovery {
	c.t.Helper()
	s := c.await("the recovery", func(s *status.Status) bool {
		require.NotEqual(c.t, "stopped", s.Phase, "the exit was reported instead: %s", s.Reason)
		return s.RecoveryCount >= n && s.Phase == "running"
	})
	require.Equal(c.t, n, s.RecoveryCount)
	return s.Recoveries[len(s.Recoveries)-1]
}

// awaitExit waits until the task has stopped, and returns its exit status.
func (c *container) awaitExit(limit time.Duration) int {
	c.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if s := c.task(); s.stopped {
			return s.exit
		}
		require.True(c.t, time.Now().Before(deadline), "the task has not stopped within %s", limit)
	}
}

// stateDir is the container's directory below the node's state_dir.
func (c *container) stateDir() string { return filepath.Dir(c.e.StatusFile(c.id)) }

// log is what the container has written.
func (c *container) log() string {
	c.t.Helper()
	data, err := os.ReadFile(c.e.ContainerLog(c.id))
	require.NoError(c.t, err)
	return string(data)
}

// dumpGoroutines logs what a shim is doing that does not do what it should.
func (c *container) dumpGoroutines(shim int) {
	c.t.Helper()
	const begin, end = "BEGIN goroutine stack dump", "END goroutine stack dump"
	read := func() string {
		data, _ := os.ReadFile(filepath.Join(c.e.Dir, "containerd.log"))
		return string(data)
	}
	before := strings.Count(read(), end)
	if err := syscall.Kill(shim, syscall.SIGUSR1); err != nil {
		c.t.Logf("shim %d: %v", shim, err)
		return
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if log := read(); strings.Count(log, end) > before {
			c.t.Logf("shim %d: %.20000s", shim, log[strings.LastIndex(log, begin):])
			return
		}
	}
	c.t.Logf("shim %d does not tell what it is doing", shim)
}

// tellFailure shows what a person would look at first.
func (c *container) tellFailure() {
	if !c.t.Failed() {
		return
	}
	if data, err := os.ReadFile(c.e.StatusFile(c.id)); err == nil {
		c.t.Logf("status: %.4000s", data)
	}
	if data, err := os.ReadFile(filepath.Join(c.e.Dir, "containerd.log")); err == nil {
		var lines []string
		for line := range strings.Lines(string(data)) {
			if strings.Contains(line, c.id) {
				lines = append(lines, line)
			}
		}
		c.t.Logf("daemon and shim: %s", strings.Join(lines[max(0, len(lines)-15):], ""))
	}
	if data, err := os.ReadFile(c.e.ContainerLog(c.id)); err == nil {
		c.t.Logf("container: %s", data[max(0, len(data)-1000):])
	}
}
