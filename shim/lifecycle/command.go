package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/sys/reaper"
)

// Child is a process that was started under containerd's reaper.
type Child struct {
	cmd    *exec.Cmd
	done   chan struct{}
	status int
	err    error
}

// StartCommand starts cmd under containerd's reaper. It forks from the calling
// thread: a caller that is locked to its thread and has entered another
// namespace with setns gives that namespace to the child. Such a caller must
// not set SysProcAttr.Pdeathsig unless its thread outlives the child.
//
// It needs the shim's reaper to be running (shim.Run); elsewhere use os/exec.
func StartCommand(cmd *exec.Cmd) (*Child, error) {
	exits, err := reaper.Default.Start(cmd)
	if err != nil {
		return nil, err
	}
	c := &Child{cmd: cmd, done: make(chan struct{})}
	// The subscription is drained from the start: the reaper waits for
	// subscribers whose channel is full.
	go func() {
		defer close(c.done)
		c.status, c.err = reaper.Default.Wait(cmd, exits)
	}()
	return c, nil
}

// RunCommand runs cmd under containerd's reaper and waits for its end and for
// its output to be copied. StartCommand says which thread it forks from.
//
// Errors: an *ExitError for a status other than 0.
func RunCommand(cmd *exec.Cmd) error {
	c, err := StartCommand(cmd)
	if err != nil {
		return err
	}
	status, err := c.Wait(context.Background())
	if err != nil {
		return fmt.Errorf("%s: %w", cmd.Path, err)
	}
	if status != 0 {
		return &ExitError{Path: cmd.Path, Status: status}
	}
	return nil
}

// Pid of the child.
func (c *Child) Pid() int { return c.cmd.Process.Pid }

// Signal sends sig to the child. A child that has ended is not an error.
func (c *Child) Signal(sig syscall.Signal) error {
	select {
	case <-c.done:
		return nil
	default:
	}
	if err := syscall.Kill(c.Pid(), sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// Wait returns the child's exit code, or 128 plus the signal that killed it.
// It may be called any number of times.
//
// Errors: the context's; reaper.ErrNoSuchProcess when the reaper ended first.
func (c *Child) Wait(ctx context.Context) (int, error) {
	select {
	case <-c.done:
		return c.status, c.err
	case <-ctx.Done():
		return -1, ctx.Err()
	}
}

// ExitError is the failure of a command.
type ExitError struct {
	Path   string
	Status int
}

// Error names the command and its status.
func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit status %d", e.Path, e.Status)
}
