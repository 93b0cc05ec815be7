package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
)

// signalOffset is added to the number of the signal that ended a process.
const signalOffset = 128

// stopSignals are those that ask a process to end. A recovery that fails after
// one of them ends as that signal would have ended init.
var stopSignals = []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT}

// Kill sends a signal to init, or to the exec of that ID; with all, to every
// process of the container. During a recovery SIGKILL ends it: the exit is
// published at once. Any other signal is delivered to the new init as soon as
// it runs.
//
// Errors: ErrFinished, ErrNoProcess, runc's.
func (c *Container) Kill(ctx context.Context, execID string, sig syscall.Signal, all bool) error {
	if execID != "" {
		return c.killExec(execID, sig)
	}
	c.mu.Lock()
	phase, guard := c.init.phase, c.guard
	if sig == syscall.SIGKILL {
		c.killed = true
	}
	c.mu.Unlock()
	if phase == PhaseDeleted {
		return fmt.Errorf("%s: %w", c.id, ErrNoContainer)
	}
	if guard != nil && sig != 0 {
		guard.Signalled(ctx, c, sig)
	}
	for {
		if c.killRecovering(sig) {
			return nil
		}
		err := killError(c.runc.Kill(ctx, c.id, int(sig), &runc.KillOpts{All: all}))
		// Init may have died, and be recovering, since it was looked at.
		if errdefs.IsNotFound(err) && c.Phase() == PhaseRecovering {
			continue
		}
		if err != nil && !errdefs.IsNotFound(err) {
			c.unkill(sig)
		}
		return err
	}
}

// unkill takes back that SIGKILL was sent, which it was not.
func (c *Container) unkill(sig syscall.Signal) {
	if sig != syscall.SIGKILL {
		return
	}
	c.mu.Lock()
	c.killed = false
	c.mu.Unlock()
}

// killRecovering returns false if no recovery is under way.
func (c *Container) killRecovering(sig syscall.Signal) bool {
	c.mu.Lock()
	r := c.recovery
	if r == nil {
		c.mu.Unlock()
		return false
	}
	if sig != syscall.SIGKILL {
		// As the kernel does: a signal that is pending is pending once.
		if sig != 0 && !slices.Contains(r.signals, sig) {
			r.signals = append(r.signals, sig)
		}
		c.mu.Unlock()
		return true
	}
	c.finalLocked(Exit{Pid: c.init.pid, Status: signalOffset + int(sig), At: time.Now(), OOM: r.exit.OOM})
	c.mu.Unlock()
	c.finish()
	return true
}

func (c *Container) killExec(id string, sig syscall.Signal) error {
	p, err := c.process(id)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case p.pid == 0:
		return fmt.Errorf("process not created: %w", ErrTransition)
	case p.phase != PhaseRunning:
		return ErrFinished
	}
	// Under the lock the process can't be handled as exited, but its PID may be
	// free already for the moment until it is.
	if err := syscall.Kill(p.pid, sig); errors.Is(err, syscall.ESRCH) {
		return ErrFinished
	} else if err != nil {
		return fmt.Errorf("exec kill error: %w", err)
	}
	return nil
}

// exitAfter returns the exit of a recovery that is given up: the one that was
// withheld, unless the orchestrator has asked for the end meanwhile.
func exitAfter(e Exit, signals []syscall.Signal) Exit {
	for _, sig := range signals {
		if slices.Contains(stopSignals, sig) {
			e.Status = signalOffset + int(sig)
			return e
		}
	}
	return e
}
