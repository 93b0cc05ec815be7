package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"
)

// daemon is the node's containerd.
type daemon struct {
	pid int
	exe string // its program, as the node sees it
	// args is its command line. k3s is containerd by the name in the first.
	args []string
}

// config is the configuration that it was told to read; empty: its default.
func (d daemon) config() string {
	for i, arg := range d.args {
		if (arg == "-c" || arg == "--config") && i+1 < len(d.args) {
			return d.args[i+1]
		}
		if path, ok := strings.CutPrefix(arg, "--config="); ok {
			return path
		}
	}
	return ""
}

// daemon finds containerd: it is the process that listens at the socket. Its
// process ID is to be seen in the node's process namespace only.
func (o Options) daemon() (daemon, error) { return o.at(o.Socket) }

// at is daemon for a socket.
func (o Options) at(socket string) (daemon, error) {
	conn, err := net.Dial("unix", o.here(socket))
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
		return daemon{}, fmt.Errorf("%w: who listens at %s: %w", ErrRestart, socket, err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", peer.Pid))
	if err != nil {
		return daemon{}, fmt.Errorf("%w: the process at %s is not to be seen (is this the node's process namespace?): %w", ErrRestart, socket, err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", peer.Pid))
	if err != nil {
		return daemon{}, fmt.Errorf("%w: the process at %s: %w", ErrRestart, socket, err)
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	return daemon{pid: int(peer.Pid), exe: strings.TrimSuffix(exe, " (deleted)"), args: args}, nil
}

// effective asks containerd what it makes of a configuration file.
func (d daemon) effective(ctx context.Context, host, config string) (table, error) {
	cmd := onHost(ctx, host, d.exe, "--config", config, "config", "dump")
	if len(d.args) > 0 {
		cmd.Args[0] = d.args[0]
	}
	out, err := cmd.Output()
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
