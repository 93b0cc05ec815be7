package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/pkg/stdio"
	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Exec adds a process to the container, to be started by Start.
//
// Errors: ErrProcessExists; ErrTransition if the container is paused or has
// stopped; errdefs.ErrInvalidArgument for a spec that can't be read.
func (c *Container) Exec(ctx context.Context, id string, spec []byte, io stdio.Stdio) error {
	var ps specs.Process
	if err := json.Unmarshal(spec, &ps); err != nil {
		return fmt.Errorf("exec %s: %w: %w", id, errdefs.ErrInvalidArgument, err)
	}
	ps.Terminal = io.Terminal
	p := newProcess(id, io)
	p.spec = &ps
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.execs[id]; taken {
		return fmt.Errorf("%s: %w", id, ErrProcessExists)
	}
	switch phase := c.init.phase; {
	case phase == PhaseCreated && c.restoreFrom != nil, phase == PhasePaused,
		phase == PhaseStopped, phase == PhaseDeleted:
		return fmt.Errorf("cannot exec in a %s container: %w", phase, ErrTransition)
	}
	c.execs[id] = p
	c.s.events.send(&events.TaskExecAdded{ContainerID: c.id, ExecID: id})
	return nil
}

func (c *Container) startExec(ctx context.Context, id string) (int, error) {
	p, err := c.process(id)
	if err != nil {
		return 0, err
	}
	release, err := c.settle(ctx, 1)
	if err != nil {
		return 0, err
	}
	defer release()
	if err := c.beginExec(p); err != nil {
		return 0, err
	}
	launch := c.s.tracker.launch()
	defer launch.end()
	pid, err := c.runExec(ctx, p)
	if err != nil {
		c.failExec(p)
		return 0, err
	}
	c.s.events.send(&events.TaskExecStarted{ContainerID: c.id, ExecID: id, Pid: uint32(pid)})
	if g := c.currentGuard(); g != nil {
		g.ExecStarted(ctx, c, pid)
	}
	if e, exited := launch.adopt(pid, owner{c, p}); exited {
		c.exited(p, e)
	}
	return pid, nil
}

// beginExec counts the exec as alive, so that init's exit is published after
// its own.
func (c *Container) beginExec(p *process) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final != nil {
		return fmt.Errorf("container %s: %w", c.id, ErrInitGone)
	}
	if p.phase != PhaseCreated || p.holding {
		return fmt.Errorf("cannot start a %s process: %w", p.phase, ErrTransition)
	}
	if p.failed {
		return fmt.Errorf("cannot start a process that has failed to start: %w", ErrTransition)
	}
	p.holding = true
	c.liveExecs++
	return nil
}

// failExec ends an exec that did not come to life. As under runc's shim it has
// no exit event, it stays created, and Wait returns.
func (c *Container) failExec(p *process) {
	c.mu.Lock()
	p.holding, p.failed = false, true
	close(p.done)
	c.liveExecs--
	c.mu.Unlock()
	c.publishFinal()
}

// runExec runs `runc exec` and connects the standard streams.
func (c *Container) runExec(ctx context.Context, p *process) (int, error) {
	io, err := c.prepareStdio(ctx, p, false)
	if err != nil {
		return 0, err
	}
	defer io.close()
	o := &runc.ExecOpts{PidFile: c.execPidFile(p.id), Detach: true, IO: io.runcIO()}
	if io.socket != nil {
		o.ConsoleSocket = io.socket
	}
	if err := c.runc.Exec(ctx, c.id, *p.spec, o); err != nil {
		io.abandon()
		return 0, runcError(c.runc, err, "OCI runtime exec failed")
	}
	pid, err := runc.ReadPidFile(o.PidFile)
	if err != nil {
		io.abandon()
		return 0, fmt.Errorf("failed to retrieve OCI runtime exec pid: %w", err)
	}
	if err := io.connect(ctx); err != nil {
		io.abandon()
		// Nobody would see it any more.
		_ = syscall.Kill(pid, syscall.SIGKILL)
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.pid = pid
	p.holding = false
	return pid, p.phase.to(PhaseRunning)
}

func (c *Container) execPidFile(id string) string {
	return filepath.Join(c.bundle, id+".pid")
}

// deleteExec forgets an exec that does not run.
func (c *Container) deleteExec(ctx context.Context, id string) (ProcessState, error) {
	p, err := c.process(id)
	if err != nil {
		return ProcessState{}, err
	}
	c.mu.Lock()
	if p.holding {
		c.mu.Unlock()
		return ProcessState{}, fmt.Errorf("cannot delete a process that is being started: %w", ErrTransition)
	}
	if p.phase == PhaseDeleted {
		c.mu.Unlock()
		return ProcessState{}, fmt.Errorf("%s: %w", id, ErrNoProcess)
	}
	if err := p.phase.to(PhaseDeleted); err != nil {
		c.mu.Unlock()
		return ProcessState{}, fmt.Errorf("cannot delete: %w", err)
	}
	c.mu.Unlock()
	c.drain(ctx, p)
	p.free()
	_ = os.Remove(c.execPidFile(id))
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.execs, id)
	return c.stateLocked(p), nil
}
