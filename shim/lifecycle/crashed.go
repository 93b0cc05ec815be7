package lifecycle

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/api/events"
)

// startCrashed starts the container as one whose init has crashed, for the guard
// to restore. The PID that it returns is that of the created init, which has run
// nothing of the user's. The caller has the turn.
func (c *Container) startCrashed(ctx context.Context) (int, error) {
	created, err := c.endCreated(ctx)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	guard := c.guard
	if guard == nil || c.killed {
		c.mu.Unlock()
		c.exited(c.init, created)
		return 0, fmt.Errorf("start %s: %w", c.id, ErrKilled)
	}
	if err := c.init.phase.to(PhaseRunning); err != nil {
		c.mu.Unlock()
		return 0, err
	}
	_ = c.init.phase.to(PhaseRecovering)
	c.recovery = newRecovery(c.s.ctx, created)
	pid := c.init.pid
	c.mu.Unlock()
	c.s.events.send(&events.TaskStart{ContainerID: c.id, Pid: uint32(pid)})
	guard.Started(ctx, c)
	if !guard.Exited(c.s.ctx, c, created) {
		c.ReportExit(created)
	}
	return pid, nil
}
