package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/api/events"
	runc "github.com/containerd/go-runc"
)

// Start starts the user's program, or the exec of that ID, and returns its PID.
// The start of an exec waits for the end of a recovery.
//
// Errors: ErrTransition, ErrInitGone, ErrNoProcess, the context's, runc's.
func (c *Container) Start(ctx context.Context, execID string) (int, error) {
	if execID != "" {
		return c.startExec(ctx, execID)
	}
	release, err := c.Exclusive(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	if c.restoreFrom != nil {
		return c.startFromCheckpoint(ctx)
	}
	if g := c.currentGuard(); g != nil {
		if g.StartCrashed(c) {
			return c.startCrashed(ctx)
		}
		if start := g.StartInstead(c); start != nil {
			return c.startInstead(ctx, start)
		}
	}
	c.mu.Lock()
	if phase := c.init.phase; phase != PhaseCreated {
		c.mu.Unlock()
		return 0, fmt.Errorf("cannot start a %s process: %w", phase, ErrTransition)
	}
	c.init.holding = true
	c.mu.Unlock()
	defer c.announced(c.init)
	if err := c.runc.Start(ctx, c.id); err != nil {
		return 0, runcError(c.runc, err, "OCI runtime start failed")
	}
	return c.started(ctx)
}

// started moves init to running and publishes it.
func (c *Container) started(ctx context.Context) (int, error) {
	c.mu.Lock()
	err := c.init.phase.to(PhaseRunning)
	pid := c.init.pid
	guard := c.guard
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	c.s.events.send(&events.TaskStart{ContainerID: c.id, Pid: uint32(pid)})
	if guard != nil {
		guard.Started(ctx, c)
	}
	return pid, nil
}

// announced lets the exit of p be handled, also if it came already.
func (c *Container) announced(p *process) {
	c.mu.Lock()
	p.holding = false
	held := p.held
	p.held = nil
	c.mu.Unlock()
	if held != nil {
		c.exited(p, *held)
	}
}

// startFromCheckpoint runs `runc restore` for a container that was created from
// a checkpoint. The caller has the turn.
func (c *Container) startFromCheckpoint(ctx context.Context) (int, error) {
	c.mu.Lock()
	if phase := c.init.phase; phase != PhaseCreated || c.init.pid != 0 {
		c.mu.Unlock()
		return 0, fmt.Errorf("cannot start a %s process: %w", phase, ErrTransition)
	}
	c.mu.Unlock()
	io, err := c.prepareStdio(ctx, c.init, false)
	if err != nil {
		return 0, err
	}
	defer io.close()
	o := *c.restoreFrom
	o.IO = io.runcIO()
	if io.socket != nil {
		o.ConsoleSocket = io.socket
	}
	launch := c.s.tracker.launch()
	defer launch.end()
	if _, err := c.runc.Restore(ctx, c.id, c.bundle, &o); err != nil {
		io.abandon()
		return 0, runcError(c.runc, err, "OCI runtime restore failed")
	}
	pid, err := runc.ReadPidFile(o.PidFile)
	if err != nil {
		err = fmt.Errorf("failed to retrieve OCI runtime container pid: %w", err)
	} else {
		err = io.connect(ctx)
	}
	if err != nil {
		io.abandon()
		return 0, errors.Join(err, deleteRunc(context.WithoutCancel(ctx), c.runc, c.id, true))
	}
	c.loadCgroup(ctx, pid)
	c.mu.Lock()
	c.init.pid = pid
	c.mu.Unlock()
	if _, err := c.started(ctx); err != nil {
		return 0, err
	}
	if e, exited := launch.adopt(pid, owner{c, c.init}); exited {
		c.exited(c.init, e)
	}
	return pid, nil
}
