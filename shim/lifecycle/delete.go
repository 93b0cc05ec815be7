package lifecycle

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/pkg/protobuf"
)

// drainOutputLimit bounds the wait for a dead process's output to be taken by
// the client, before its process is deleted.
const drainOutputLimit = 10 * time.Second

// Delete removes the container, or the exec of that ID, which must not be
// running, and returns its last state. For the container it waits for a restore
// to be unwound that a SIGKILL has ended.
//
// Errors: ErrTransition, ErrNoContainer, ErrNoProcess, runc's and those of
// unmounting.
func (c *Container) Delete(ctx context.Context, execID string) (ProcessState, error) {
	if execID != "" {
		return c.deleteExec(ctx, execID)
	}
	release, err := c.Exclusive(ctx)
	if err != nil {
		return ProcessState{}, err
	}
	defer release()
	c.mu.Lock()
	phase, pid := c.init.phase, c.init.pid
	force := c.restored
	c.mu.Unlock()
	if phase == PhaseDeleted {
		return ProcessState{}, fmt.Errorf("%s: %w", c.id, ErrNoContainer)
	}
	if phase != PhaseStopped && phase != PhaseCreated {
		return ProcessState{}, fmt.Errorf("cannot delete a %s process: %w", phase, ErrTransition)
	}
	if phase == PhaseStopped {
		c.drain(ctx, c.init)
	}
	c.closeOOM()
	if err := deleteRunc(ctx, c.runc, c.id, force); err != nil {
		return ProcessState{}, err
	}
	if phase == PhaseCreated && pid != 0 {
		// runc has killed init; its exit comes before the deletion.
		c.awaitExit(ctx)
	}
	return c.deleted(ctx)
}

func (c *Container) awaitExit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reapLimit)
	defer cancel()
	if err := c.init.wait(ctx); err != nil {
		c.logger(ctx).WithError(err).Warn("exit of deleted init")
	}
}

// deleted frees the rest when runc's container is gone.
func (c *Container) deleted(ctx context.Context) (ProcessState, error) {
	if g := c.takeGuard(); g != nil {
		c.dropGuard(ctx, g)
	}
	c.init.free()
	if err := c.unmount(); err != nil {
		c.logger(ctx).WithError(err).Warn("failed to cleanup rootfs mount")
		return ProcessState{}, err
	}
	c.mu.Lock()
	if err := c.init.phase.to(PhaseDeleted); err != nil {
		c.mu.Unlock()
		return ProcessState{}, err
	}
	last := c.stateLocked(c.init)
	c.mu.Unlock()
	c.s.remove(c.id)
	c.s.events.send(&events.TaskDelete{
		ContainerID: c.id,
		Pid:         uint32(last.Pid),
		ExitStatus:  uint32(last.Exit.Status),
		ExitedAt:    protobuf.ToTimestamp(last.Exit.At),
	})
	return last, nil
}

// drain waits for a dead process's output to be taken. What a client does not
// take in time is lost to it, as under runc's shim.
func (c *Container) drain(ctx context.Context, p *process) {
	ctx, cancel := context.WithTimeout(ctx, drainOutputLimit)
	defer cancel()
	c.mu.Lock()
	s, t := p.streams, p.terminal
	c.mu.Unlock()
	var err error
	switch {
	case s != nil:
		err = s.drain(ctx)
	case t != nil:
		err = t.drain(ctx)
	}
	if err != nil {
		c.logger(ctx).WithError(err).Errorf("failed to drain process %q io", p.id)
	}
}

// free closes the standard streams.
func (p *process) free() {
	if p.streams != nil {
		p.streams.close()
	}
	if p.terminal != nil {
		p.terminal.close()
	}
}
