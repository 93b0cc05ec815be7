package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	runc "github.com/containerd/go-runc"
)

// reapLimit bounds the wait for a restored init that had to be killed again.
const reapLimit = 5 * time.Second

// recovery is the time from init's death, when the guard took the exit, until
// it runs again or the exit is settled. Its fields are guarded by the
// container's mutex.
type recovery struct {
	exit Exit
	// ctx ends with the recovery: a SIGKILL aborts a restore under way.
	ctx    context.Context
	cancel context.CancelFunc
	over   chan struct{}
	// signals from the orchestrator, for the new init.
	signals []syscall.Signal
}

func newRecovery(ctx context.Context, e Exit) *recovery {
	r := &recovery{exit: e, over: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r
}

func (r *recovery) end() {
	r.cancel()
	close(r.over)
}

// RestoreRequest says how to bring a dead init back.
type RestoreRequest struct {
	// Mark is where the standard streams were at the checkpoint; nil: all
	// output of the restored process is new.
	Mark *StdioMark
	// Stdio are the standard streams of the new init, from NewStdio, when it had
	// to be prepared for them before the crash. They belong to Restore from then
	// on, also if it fails. nil: Restore makes them.
	Stdio *Stdio
	// Start restores the dead container with stdio. Its context is cancelled by a
	// SIGKILL from the orchestrator.
	Start StartFunc
}

// NewStdio makes the standard streams of a restore that is to be prepared in
// advance, for RestoreRequest.Stdio. Whoever does not use them closes them.
//
// Errors: ErrNotRecovering when the streams do not pass the shim.
func (c *Container) NewStdio() (*Stdio, error) {
	c.mu.Lock()
	s := c.init.streams
	c.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("%s: standard streams: %w", c.id, ErrNotRecovering)
	}
	return s.renew()
}

// Restore brings the dead init back as the same task: it makes fresh streams that
// flow into the same fifos, file or logging binary, calls Start with exits
// being watched, adopts the new PID, loads cgroup, statistics and OOM watch
// anew, delivers the signals that came meanwhile and returns to running. After
// an error other than ErrKilled the guard may call it again, or ReportExit.
//
// Errors: ErrKilled, ErrNotRecovering, the context's, Start's.
func (c *Container) Restore(ctx context.Context, req RestoreRequest) error {
	r, err := c.recovering()
	if err != nil {
		return errors.Join(err, req.Stdio.discard())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	release, err := c.Exclusive(ctx)
	if err != nil {
		return errors.Join(c.restoreError(r, err), req.Stdio.discard())
	}
	defer release()
	if r.ctx.Err() != nil {
		return errors.Join(c.restoreError(r, r.ctx.Err()), req.Stdio.discard())
	}
	launch := c.s.tracker.launch()
	defer launch.end()
	pid, stdio, err := c.runRestore(ctx, req)
	if err != nil {
		return c.restoreError(r, err)
	}
	return c.adopt(ctx, r, launch, pid, stdio, req.Mark)
}

func (c *Container) recovering() (*recovery, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.recovery != nil:
		return c.recovery, nil
	case c.killed:
		return nil, fmt.Errorf("restore %s: %w", c.id, ErrKilled)
	}
	return nil, fmt.Errorf("restore %s: %w", c.id, ErrNotRecovering)
}

// restoreError tells a kill from a failure.
func (c *Container) restoreError(r *recovery, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recovery != r {
		err = ErrKilled
	}
	return fmt.Errorf("restore %s: %w", c.id, err)
}

func (c *Container) runRestore(ctx context.Context, req RestoreRequest) (int, *Stdio, error) {
	c.mu.Lock()
	killAll := c.sharedPIDs
	c.restored = true
	s := c.init.streams
	c.mu.Unlock()
	if killAll {
		c.killAll(ctx)
	}
	c.closeOOM()
	stdio := req.Stdio
	if stdio == nil {
		var err error
		if stdio, err = s.renew(); err != nil {
			return 0, nil, err
		}
	}
	pid, err := req.Start(ctx, stdio)
	if err != nil {
		return 0, nil, errors.Join(err, stdio.Close())
	}
	return pid, stdio, stdio.CloseAfterStart()
}

// adopt makes pid the init of the container, or kills it if it comes too late.
func (c *Container) adopt(ctx context.Context, r *recovery, l *launch, pid int, stdio *Stdio, mark *StdioMark) error {
	c.mu.Lock()
	if c.recovery != r {
		c.mu.Unlock()
		return errors.Join(c.restoreError(r, nil), stdio.Close(), c.killRestored(l, pid))
	}
	if err := c.init.phase.to(PhaseRunning); err != nil {
		c.mu.Unlock()
		return err
	}
	c.init.pid = pid
	c.init.holding = true
	c.recovery = nil
	signals := r.signals
	c.mu.Unlock()
	// A request that came here waits for the turn until all is in place.
	if err := c.init.streams.resume(stdio, mark); err != nil {
		c.logger(ctx).WithError(err).Error("standard input after restore")
	}
	c.loadCgroup(ctx, pid)
	if err := os.WriteFile(filepath.Join(c.bundle, pidFile), []byte(strconv.Itoa(pid)), 0o644); err != nil {
		c.logger(ctx).WithError(err).Error("init pid file")
	}
	if e, exited := l.adopt(pid, owner{c, c.init}); exited {
		c.exited(c.init, e)
	}
	for _, sig := range signals {
		if err := killError(c.runc.Kill(context.WithoutCancel(ctx), c.id, int(sig), &runc.KillOpts{})); err != nil {
			c.logger(ctx).WithError(err).Warnf("deliver %v after restore", sig)
		}
	}
	r.end()
	c.announced(c.init)
	return nil
}

// killRestored ends an init that was restored in vain, so that Delete, which
// waits for its turn, finds it dead.
func (c *Container) killRestored(l *launch, pid int) error {
	dead := make(chan struct{})
	ghost := &process{onExit: func(Exit) { close(dead) }}
	if _, exited := l.adopt(pid, owner{c, ghost}); exited {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	select {
	case <-dead:
		return nil
	case <-time.After(reapLimit):
		return fmt.Errorf("process %d survives SIGKILL", pid)
	}
}

// ReportExit publishes the exit that the guard has withheld. If the recovery is
// over already, because of a SIGKILL or a Restore, it does nothing.
func (c *Container) ReportExit(e Exit) {
	c.mu.Lock()
	r := c.recovery
	if r == nil {
		c.mu.Unlock()
		return
	}
	c.finalLocked(exitAfter(e, r.signals))
	c.mu.Unlock()
	c.finish()
}
