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
)

// startInstead starts the container with processes that the guard makes. The
// created init, which has run nothing of the user's, makes room for them. The
// caller has the turn.
func (c *Container) startInstead(ctx context.Context, start StartFunc) (int, error) {
	created, err := c.endCreated(ctx)
	if err != nil {
		return 0, err
	}
	launch := c.s.tracker.launch()
	defer launch.end()
	pid, stdio, err := c.runRestore(ctx, RestoreRequest{Start: start})
	if err != nil {
		c.exited(c.init, created)
		return 0, fmt.Errorf("start %s: %w", c.id, err)
	}
	c.mu.Lock()
	c.init.pid = pid
	c.init.holding = true
	c.mu.Unlock()
	defer c.announced(c.init)
	if err := c.init.streams.resume(stdio, nil); err != nil {
		c.logger(ctx).WithError(err).Error("standard input")
	}
	c.loadCgroup(ctx, pid)
	if err := os.WriteFile(filepath.Join(c.bundle, pidFile), []byte(strconv.Itoa(pid)), 0o644); err != nil {
		c.logger(ctx).WithError(err).Error("init pid file")
	}
	if e, exited := launch.adopt(pid, owner{c, c.init}); exited {
		c.exited(c.init, e) // held until the start has been announced
	}
	return c.started(ctx)
}

// endCreated kills the created init and returns its exit, which is not
// published.
func (c *Container) endCreated(ctx context.Context) (Exit, error) {
	exits := make(chan Exit, 1)
	c.mu.Lock()
	if phase := c.init.phase; phase != PhaseCreated || c.init.streams == nil {
		c.mu.Unlock()
		return Exit{}, fmt.Errorf("cannot start a %s process: %w", phase, ErrTransition)
	}
	c.init.onExit = func(e Exit) { exits <- e }
	pid := c.init.pid
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.init.onExit = nil
		c.mu.Unlock()
	}()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return Exit{}, os.NewSyscallError("kill", err)
	}
	select {
	case e := <-exits:
		return e, nil
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("start %s: %w", c.id, ctx.Err())
	case <-time.After(reapLimit):
		return Exit{}, fmt.Errorf("start %s: process %d survives SIGKILL", c.id, pid)
	}
}
