package env

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const startTimeout = 30 * time.Second

func (e *Env) pidFile() string { return filepath.Join(e.Dir, "containerd.pid") }

// KeepLog copies the daemon's log, in which that of the shims is, to a file; an empty
// name: to none.
func (e *Env) KeepLog(file string) error {
	if file == "" {
		return nil
	}
	log, err := os.ReadFile(e.logFile())
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err != nil {
		return fmt.Errorf("keep the log: %w", err)
	}
	return os.WriteFile(file, log, 0o644)
}

func (e *Env) logFile() string { return filepath.Join(e.Dir, "containerd.log") }

// startDaemon returns when the daemon answers. It survives its starter: it
// has a session of its own and writes to a file.
func (e *Env) startDaemon(ctx context.Context) error {
	config := filepath.Join(e.Dir, "containerd.toml")
	text := ContainerdConfig{
		Dir: e.Dir, Address: e.Address,
		Off: []string{
			"io.containerd.cri.v1.images",
			"io.containerd.cri.v1.runtime",
			"io.containerd.grpc.v1.cri",
		},
		More: e.daemon,
	}.TOML()
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(e.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(e.tool("containerd"), "--config", config)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.Env = e.daemonEnviron()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }() // its end is judged by the pid file
	if err := writeProcess(e.pidFile(), cmd.Process.Pid); err != nil {
		return err
	}
	return e.awaitDaemon(ctx, exited)
}

func (e *Env) awaitDaemon(ctx context.Context, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if c, err := net.Dial("unix", e.Address); err == nil {
			c.Close()
			if _, err := e.Ctr(ctx, "version"); err == nil {
				return nil
			}
		}
		select {
		case <-exited:
			return fmt.Errorf("containerd ended during its start:\n%s", e.logTail())
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer: %w\n%s", ctx.Err(), e.logTail())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// daemonEnviron leaves out what is meant for the caller only, such as a
// service manager's notification socket.
func (e *Env) daemonEnviron() []string {
	env := []string{"PATH=" + e.Path(), "CRSC_CONFIG=" + e.configFile(),
		// Where containerd leaves the images of `ctr task checkpoint` for ever.
		"XDG_RUNTIME_DIR=" + e.Dir}
	for _, name := range []string{"HOME", "TMPDIR", "GOCOVERDIR", "GOTRACEBACK"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// stopDaemon ends the daemon only; the shims live on. It asks first, then
// kills.
func (e *Env) stopDaemon(grace time.Duration) error {
	p := e.daemonProcess()
	if !p.alive() {
		return nil
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if p.await(grace) {
		return nil
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if !p.await(10 * time.Second) {
		return fmt.Errorf("containerd (pid %d) does not die", p.Pid)
	}
	return nil
}

// RestartDaemon stops the daemon, with SIGKILL if kill is set, and starts it
// again. Containers and their shims live on meanwhile.
func (e *Env) RestartDaemon(ctx context.Context, kill bool) error {
	unlock, err := e.lock()
	if err != nil {
		return err
	}
	defer unlock()
	grace := 10 * time.Second
	if p := e.daemonProcess(); kill && p.alive() {
		if err := p.signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	if err := e.stopDaemon(grace); err != nil {
		return err
	}
	for _, socket := range []string{e.Address, e.Address + ".ttrpc"} {
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return e.startDaemon(ctx)
}

// daemonProcess returns the zero process when there is no pid file.
func (e *Env) daemonProcess() process {
	p, err := readProcess(e.pidFile())
	if err != nil {
		return process{}
	}
	return p
}

// logTail returns the last lines of the daemon's log.
func (e *Env) logTail() string {
	data, err := os.ReadFile(e.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
