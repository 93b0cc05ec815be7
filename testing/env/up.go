package env

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Up makes the environment, or finds that it is up already. What an
// interrupted Up left behind is destroyed first. The environment stays until
// Down is called.
func (e *Env) Up(ctx context.Context) error {
	unlock, err := e.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := e.upLocked(ctx); err != nil {
		return err
	}
	return os.WriteFile(e.keepFile(), nil, 0o600)
}

// While destroys what a run that was killed left of an instance, containers
// included, makes the environment anew, calls use, and destroys it again, also
// when ctx has ended. The names are those of Locate and WithTools.
func While(ctx context.Context, instance string, tools []string, use func(*Env) error) (err error) {
	e, err := Locate(instance)
	if err != nil {
		return err
	}
	if len(tools) > 0 {
		e = e.WithTools(tools...)
	}
	if err := e.Down(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Down(context.WithoutCancel(ctx))) }()
	if err := e.Up(ctx); err != nil {
		return err
	}
	return use(e)
}

// keepFile exists when somebody brought the environment up on purpose, so that
// the last test that used it must not take it down.
func (e *Env) keepFile() string { return filepath.Join(e.Dir, "keep") }

func (e *Env) upLocked(ctx context.Context) error {
	if err := e.checkTools(); err != nil {
		return err
	}
	if e.Ready(ctx) {
		return nil
	}
	if err := e.downLocked(ctx); err != nil {
		return err
	}
	err := e.make(ctx)
	if err != nil {
		if derr := e.downLocked(context.WithoutCancel(ctx)); derr != nil {
			err = fmt.Errorf("%w (and cleaning up: %w)", err, derr)
		}
	}
	return err
}

func (e *Env) make(ctx context.Context) error {
	// The users of a user namespace pass through to a container's root file system.
	if err := os.MkdirAll(e.Dir, 0o711); err != nil {
		return err
	}
	if err := os.MkdirAll(e.StateDir, 0o700); err != nil {
		return err
	}
	node := fmt.Sprintf("state_dir = %q\ncriu = %q\nlog_level = \"info\"\n", e.StateDir, filepath.Join(e.ToolsDir, "criu"))
	if err := os.WriteFile(e.configFile(), []byte(node), 0o600); err != nil {
		return err
	}
	if err := e.makeClient(); err != nil {
		return fmt.Errorf("client network: %w", err)
	}
	if _, err := e.makePod("pod"); err != nil {
		return fmt.Errorf("pod network: %w", err)
	}
	return e.startDaemon(ctx)
}

// Ready reports whether the daemon answers and the network exists.
func (e *Env) Ready(ctx context.Context) bool {
	if !e.daemonProcess().alive() {
		return false
	}
	for _, name := range []string{"client", "pod"} {
		if !isNetns(e.netns(name, 1).Path) {
			return false
		}
	}
	_, err := e.Ctr(ctx, "version")
	return err == nil
}
