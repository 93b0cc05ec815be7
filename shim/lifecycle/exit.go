package lifecycle

import (
	"context"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	runc "github.com/containerd/go-runc"
)

// killAllLimit bounds `runc kill --all` after init has died.
const killAllLimit = 30 * time.Second

// oomWindow is how long after an OOM notice a death by SIGKILL is put down to it.
const oomWindow = 5 * time.Second

// exited takes the exit of p from the reaper. It does not block.
func (c *Container) exited(p *process, e Exit) {
	c.mu.Lock()
	if p.holding {
		p.held = &e
		c.mu.Unlock()
		return
	}
	onExit := p.onExit
	c.mu.Unlock()
	switch {
	case onExit != nil:
		onExit(e)
	case p == c.init:
		c.initExited(e)
	default:
		c.execExited(p, e)
	}
}

// initExited offers the exit to the guard or lets it be published.
func (c *Container) initExited(e Exit) {
	c.mu.Lock()
	w := c.oom
	c.mu.Unlock()
	// The notice comes before the kill: an old one is another process's.
	killed := e.Status == signalOffset+int(syscall.SIGKILL)
	e.OOM = killed && time.Since(w.lastOOM()) < oomWindow
	c.mu.Lock()
	guard := c.guard
	if guard == nil || c.killed || c.init.phase != PhaseRunning {
		c.finalLocked(e)
		c.mu.Unlock()
		c.finish()
		return
	}
	_ = c.init.phase.to(PhaseRecovering)
	c.recovery = newRecovery(c.s.ctx, e)
	c.mu.Unlock()
	if !guard.Exited(c.s.ctx, c, e) {
		c.ReportExit(e)
	}
}

// finalLocked settles what init's exit is; from now on no exec starts.
func (c *Container) finalLocked(e Exit) {
	c.final = &e
	c.finishing = true
	if r := c.recovery; r != nil {
		c.recovery = nil
		r.end()
	}
}

// finish makes the container's other processes end, and publishes the exit of
// init when the last exec is gone.
func (c *Container) finish() {
	c.mu.Lock()
	paused, killAll := c.init.phase == PhasePaused, c.sharedPIDs
	c.mu.Unlock()
	if !paused && !killAll {
		c.finished()
		return
	}
	// The exit loop can't wait for runc.
	c.s.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.s.ctx), killAllLimit)
		defer cancel()
		if paused {
			if err := c.runc.Resume(ctx, c.id); err != nil {
				c.logger(ctx).WithError(err).Error("resuming exited container from paused state")
			}
		}
		if killAll {
			c.killAll(ctx)
		}
		c.finished()
	})
}

// killAll ends what is left in a container without a PID namespace of its own.
func (c *Container) killAll(ctx context.Context) {
	err := c.runc.Kill(ctx, c.id, int(syscall.SIGKILL), &runc.KillOpts{All: true})
	if err != nil {
		err = runcError(c.runc, err, "OCI runtime killall failed")
		c.logger(ctx).WithError(err).Error("failed to kill init's children")
	}
}

func (c *Container) finished() {
	c.mu.Lock()
	c.finishing = false
	c.mu.Unlock()
	c.publishFinal()
}

// publishFinal publishes the exit of init once nothing stands in its way: it
// must be the last exit of the container.
func (c *Container) publishFinal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final == nil || c.finishing || c.liveExecs > 0 {
		return
	}
	if c.init.phase.to(PhaseStopped) != nil {
		return // published already, or deleted meanwhile
	}
	c.stopLocked(c.init, c.id, *c.final)
	if s := c.init.streams; s != nil {
		s.release()
	}
}

func (c *Container) execExited(p *process, e Exit) {
	c.mu.Lock()
	if p.phase.to(PhaseStopped) == nil {
		c.stopLocked(p, p.id, e)
	}
	c.liveExecs--
	c.mu.Unlock()
	c.publishFinal()
}

// stopLocked makes the exit known; id is the event's.
func (c *Container) stopLocked(p *process, id string, e Exit) {
	p.exit = e
	c.s.consoles.shutdown(p.terminal)
	c.s.events.send(&events.TaskExit{
		ContainerID: c.id,
		ID:          id,
		Pid:         uint32(e.Pid),
		ExitStatus:  uint32(e.Status),
		ExitedAt:    protobuf.ToTimestamp(e.At),
	})
	close(p.done)
}

// Wait returns the exit of init, or of the exec of that ID, when it is final.
// A recovery does not end it.
//
// Errors: ErrNoProcess, the context's.
func (c *Container) Wait(ctx context.Context, execID string) (Exit, error) {
	p, err := c.process(execID)
	if err != nil {
		return Exit{}, err
	}
	if err := p.wait(ctx); err != nil {
		return Exit{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.exit, nil
}

func (c *Container) publishOOM() {
	c.s.events.send(&events.TaskOOM{ContainerID: c.id})
}
