package node

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

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"
)

// daemon is the node's containerd.
type daemon struct {
	pid int
	exe string // its program, as the node sees it
}

// daemon finds containerd: it is the process that listens at the socket. Its
// process ID is to be seen in the node's process namespace only.
func (o Options) daemon() (daemon, error) {
	conn, err := net.Dial("unix", o.here(o.Socket))
	if err != nil {
		return daemon{}, fmt.Errorf("%w: %w", ErrRestart, err)
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return daemon{}, err
	}
	var peer *unix.Ucred
	var perr error
	err = raw.Control(func(fd uintptr) { peer, perr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, perr); err != nil {
		return daemon{}, fmt.Errorf("%w: who listens at %s: %w", ErrRestart, o.Socket, err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", peer.Pid))
	if err != nil {
		return daemon{}, fmt.Errorf("%w: the process at %s is not to be seen (is this the node's process namespace?): %w", ErrRestart, o.Socket, err)
	}
	return daemon{pid: int(peer.Pid), exe: strings.TrimSuffix(exe, " (deleted)")}, nil
}

// effective asks containerd what it makes of a configuration file.
func (d daemon) effective(ctx context.Context, host, config string) (table, error) {
	out, err := onHost(ctx, host, d.exe, "--config", config, "config", "dump").Output()
	if err != nil {
		return nil, fmt.Errorf("%w: containerd config dump: %w: %s", ErrConfig, err, stderr(err))
	}
	var t table
	if err := toml.Unmarshal(out, &t); err != nil {
		return nil, fmt.Errorf("%w: containerd config dump: %w", ErrConfig, err)
	}
	return t, nil
}

// onHost prepares a program of the node to run in the node's root directory.
func onHost(ctx context.Context, host, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if host != "/" {
		cmd.Path, cmd.Err = name, nil // not looked up here
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: host}
	}
	return cmd
}

func stderr(err error) string {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return strings.TrimSpace(string(e.Stderr))
	}
	return ""
}

// restart restarts containerd and waits until it accepts connections again.
func (o Options) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, o.Patience)
	defer cancel()
	how := o.Restart
	if _, err := os.Stat(o.here("/run/systemd/system")); how == RestartAuto {
		how = RestartSignal
		if err == nil {
			how = RestartSystemd
		}
	}
	switch how {
	case RestartNone:
		o.Log("containerd's configuration has changed: restart it for that to take effect")
		return nil
	case RestartSystemd:
		systemctl, err := o.find("systemctl")
		if err != nil {
			return err
		}
		if out, err := onHost(ctx, o.Host, systemctl, "restart", o.Service).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: systemctl restart %s: %w: %s", ErrRestart, o.Service, err, strings.TrimSpace(string(out)))
		}
	case RestartSignal:
		if err := o.signalDaemon(ctx); err != nil {
			return err
		}
	}
	if err := o.awaitSocket(ctx); err != nil {
		return fmt.Errorf("%w: it does not come back within %v: %w", ErrRestart, o.Patience, err)
	}
	o.Log("containerd restarted (%s)", how)
	return nil
}

// find looks for a program of the node.
func (o Options) find(name string) (string, error) {
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin"} {
		if st, err := os.Stat(o.here(filepath.Join(dir, name))); err == nil && st.Mode().IsRegular() {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("%w: the node has no %s", ErrRestart, name)
}

// signalDaemon ends containerd and waits until there is another.
func (o Options) signalDaemon(ctx context.Context) error {
	old, err := o.daemon()
	if err != nil {
		return err
	}
	if err := syscall.Kill(old.pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("%w: signal process %d: %w", ErrRestart, old.pid, err)
	}
	for {
		if d, err := o.daemon(); err == nil && d.pid != old.pid {
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%w: nothing has started containerd again: %w", ErrRestart, err)
		}
	}
}

func (o Options) awaitSocket(ctx context.Context) error {
	for {
		c, err := net.Dial("unix", o.here(o.Socket))
		if err == nil {
			return c.Close()
		}
		if perr := pause(ctx); perr != nil {
			return errors.Join(perr, err)
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}
