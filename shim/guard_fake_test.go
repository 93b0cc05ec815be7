package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	runc "github.com/containerd/go-runc"
	"github.com/containerd/log"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

// guardAnnotation asks for a restartGuard; its value lists the guard's traits:
//
//	swallow  drop the output that was written before
//	held     recover only when there is a file "proceed" in the bundle
//	fail     fail to restore, and report the exit
//	oom      do not recover from an OOM
//	prepare  fail to prepare
//	refuse   refuse the container
//	deny     refuse it when it is prepared
//	late     refuse it when it has been created
//	crashed  recover it from its very start
//	instead  make the processes itself, in place of a start
const guardAnnotation = "crsc.test/guard"

// restartGuard recovers a container by running it anew.
type restartGuard struct {
	traits string
	mark   *lifecycle.StdioMark
	cancel context.CancelFunc
	ctx    context.Context
	work   sync.WaitGroup
	mu     sync.Mutex // guards closed
	closed bool
}

// testGuards make them.
type testGuards struct{}

func (testGuards) Close() error { return nil }

func (testGuards) NewGuard(_ context.Context, c *lifecycle.Container) (lifecycle.Guard, error) {
	traits, ok := c.Annotations()[guardAnnotation]
	if !ok {
		return nil, nil
	}
	if strings.Contains(traits, "refuse") {
		return nil, errors.New("refused by the test's guard")
	}
	g := &restartGuard{traits: traits}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g, nil
}

func (g *restartGuard) has(trait string) bool { return strings.Contains(g.traits, trait) }

func (g *restartGuard) Prepare(_ context.Context, c *lifecycle.Container) error {
	if g.has("deny") {
		return fmt.Errorf("not this one: %w", lifecycle.ErrRefused)
	}
	if g.has("prepare") {
		return errors.New("not today")
	}
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	spec.Process.Env = append(spec.Process.Env, "GUARDED=yes")
	return c.WriteSpec(spec)
}

func (g *restartGuard) Created(_ context.Context, c *lifecycle.Container) error {
	if g.has("late") {
		return fmt.Errorf("not this one: %w", lifecycle.ErrRefused)
	}
	if g.has("swallow") {
		g.mark = c.MarkStdio()
	}
	return nil
}

func (g *restartGuard) StartInstead(c *lifecycle.Container) lifecycle.StartFunc {
	if !g.has("instead") {
		return nil
	}
	return func(ctx context.Context, io *lifecycle.Stdio) (int, error) {
		if g.has("fail") {
			return 0, errors.New("no luck")
		}
		return restart(ctx, c, io)
	}
}

// StartCrashed makes the start of the container a recovery.
func (g *restartGuard) StartCrashed(*lifecycle.Container) bool { return g.has("crashed") }

func (g *restartGuard) Started(context.Context, *lifecycle.Container)                   {}
func (g *restartGuard) Signalled(context.Context, *lifecycle.Container, syscall.Signal) {}
func (g *restartGuard) ExecStarted(context.Context, *lifecycle.Container, int)          {}
func (g *restartGuard) Paused(context.Context, *lifecycle.Container)                    {}
func (g *restartGuard) Checkpointing(context.Context, *lifecycle.Container) bool {
	return false
}
func (g *restartGuard) Resumed(context.Context, *lifecycle.Container)       {}
func (g *restartGuard) Deleted(context.Context, *lifecycle.Container) error { return nil }

func (g *restartGuard) Exited(_ context.Context, c *lifecycle.Container, e lifecycle.Exit) bool {
	// Exit 0 and the exit that a test asks for are not crashes.
	if e.Status == 0 || e.Status == 42 || e.OOM && g.has("oom") {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false // killed and deleted while this was being told
	}
	g.work.Go(func() { g.recover(c, e) })
	return true
}

func (g *restartGuard) recover(c *lifecycle.Container, e lifecycle.Exit) {
	for g.has("held") && g.ctx.Err() == nil {
		if _, err := os.Stat(filepath.Join(c.Bundle(), "proceed")); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	err := c.Restore(g.ctx, lifecycle.RestoreRequest{
		Mark: g.mark,
		Start: func(ctx context.Context, io *lifecycle.Stdio) (int, error) {
			if g.has("fail") {
				return 0, errors.New("no luck")
			}
			return restart(ctx, c, io)
		},
	})
	if errors.Is(err, lifecycle.ErrKilled) {
		return
	}
	if err != nil {
		log.L.WithError(err).Error("fake guard")
		c.ReportExit(e)
	}
}

// restart stands in for a restore.
func restart(ctx context.Context, c *lifecycle.Container, io *lifecycle.Stdio) (int, error) {
	r := c.Runc()
	if err := r.Delete(ctx, c.ID(), &runc.DeleteOpts{Force: true}); err != nil {
		return 0, err
	}
	pidFile := filepath.Join(c.Bundle(), "restart.pid")
	if err := io.Create(ctx, r, c.ID(), c.Bundle(), runc.CreateOpts{PidFile: pidFile}); err != nil {
		return 0, err
	}
	if err := r.Start(ctx, c.ID()); err != nil {
		return 0, err
	}
	return runc.ReadPidFile(pidFile)
}

func (g *restartGuard) Close() error {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.work.Wait()
	return nil
}
