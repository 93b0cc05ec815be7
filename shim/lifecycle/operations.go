package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/console"
	"github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Pause freezes the container. It waits for the end of a recovery.
//
// Errors: ErrTransition, the context's, runc's.
func (c *Container) Pause(ctx context.Context) error {
	release, err := c.settle(ctx, turns)
	if err != nil {
		return err
	}
	defer release()
	if err := c.require("pause", PhaseRunning); err != nil {
		return err
	}
	c.setPausing(true)
	defer c.setPausing(false)
	if err := c.runc.Pause(ctx, c.id); err != nil {
		return runcError(c.runc, err, "OCI runtime pause failed")
	}
	if err := c.move(PhasePaused); err != nil {
		return err
	}
	c.s.events.send(&events.TaskPaused{ContainerID: c.id})
	if g := c.currentGuard(); g != nil {
		g.Paused(ctx, c)
	}
	return nil
}

func (c *Container) setPausing(on bool) {
	c.mu.Lock()
	c.pausing = on
	c.mu.Unlock()
}

// Resume thaws the container.
//
// Errors: ErrTransition, the context's, runc's.
func (c *Container) Resume(ctx context.Context) error {
	release, err := c.settle(ctx, turns)
	if err != nil {
		return err
	}
	defer release()
	if err := c.require("resume", PhasePaused); err != nil {
		return err
	}
	if err := c.runc.Resume(ctx, c.id); err != nil {
		return runcError(c.runc, err, "OCI runtime resume failed")
	}
	if err := c.move(PhaseRunning); err != nil {
		return err
	}
	c.s.events.send(&events.TaskResumed{ContainerID: c.id})
	if g := c.currentGuard(); g != nil {
		g.Resumed(ctx, c)
	}
	return nil
}

// Update changes the limits of the container. resources is the JSON form of
// the runtime specification's LinuxResources.
//
// Errors: ErrTransition, errdefs.ErrInvalidArgument, the context's, runc's.
func (c *Container) Update(ctx context.Context, resources []byte) error {
	var r specs.LinuxResources
	if err := json.Unmarshal(resources, &r); err != nil {
		return fmt.Errorf("resources: %w: %w", errdefs.ErrInvalidArgument, err)
	}
	release, err := c.settle(ctx, turns)
	if err != nil {
		return err
	}
	defer release()
	if err := c.require("update", PhaseCreated, PhaseRunning, PhasePaused); err != nil {
		return err
	}
	return c.runc.Update(ctx, c.id, &r)
}

// ResizePty sets the size of a process's terminal, in characters. A process
// without one is left alone.
//
// Errors: ErrNoProcess, ErrTransition for an exec that has stopped.
func (c *Container) ResizePty(execID string, width, height uint32) error {
	p, err := c.process(execID)
	if err != nil {
		return err
	}
	c.mu.Lock()
	s, t, phase := p.streams, p.terminal, p.phase
	c.mu.Unlock()
	if execID != "" && phase != PhaseCreated && phase != PhaseRunning {
		return fmt.Errorf("cannot resize a %s process: %w", phase, ErrTransition)
	}
	switch {
	case t != nil:
		return t.Resize(console.WinSize{Width: uint16(width), Height: uint16(height)})
	case s != nil:
		return s.resize(unix.Winsize{Row: uint16(height), Col: uint16(width)})
	}
	return nil
}

// CloseIO lets a process's stdin end when the client has closed its side, also
// if the process is started only later.
//
// Errors: ErrNoProcess.
func (c *Container) CloseIO(execID string) error {
	p, err := c.process(execID)
	if err != nil {
		return err
	}
	c.mu.Lock()
	p.stdinClosed = true
	s, t := p.streams, p.terminal
	c.mu.Unlock()
	return closeStdin(s, t)
}

// require fails unless init is in one of the phases.
func (c *Container) require(operation string, phases ...Phase) error {
	phase := c.Phase()
	for _, p := range phases {
		if p == phase {
			return nil
		}
	}
	return fmt.Errorf("cannot %s a %s container: %w", operation, phase, ErrTransition)
}

// move brings init to the phase.
func (c *Container) move(to Phase) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.init.phase.to(to)
}
