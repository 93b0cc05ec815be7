package isolate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/crsc-io/crsc/testing/env"
)

// Dir is where an isolated program keeps its files; it is in memory and lost at
// the end.
const Dir = "/run/crsc"

// Address is that of its containerd.
const Address = Dir + "/containerd.sock"

// Containerd is the daemon of an isolated program. It ends with the program.
type Containerd struct {
	Address string // of its gRPC socket
	Log     string // file

	cmd    func() *exec.Cmd
	again  time.Duration
	starts atomic.Int64
	exited chan struct{}
}

// Starts is how often the daemon was started.
func (d *Containerd) Starts() int { return int(d.starts.Load()) }

const containerdStart = 30 * time.Second

// ContainerdOptions are what differs between users.
type ContainerdOptions struct {
	Path   string   // PATH of the daemon and the shims; the binary is looked up in it
	Node   string   // the shims' node file (CRSC_CONFIG); empty: that of a host
	Config string   // further TOML
	File   string   // configuration to use instead; it says to listen at Address
	Off    []string // further plugins to disable
	// Again is how long after its end it is started again, as by a service manager;
	// 0: never.
	Again time.Duration
}

// TOML is the configuration that StartContainerd writes.
func (o ContainerdOptions) TOML() []byte {
	return env.ContainerdConfig{Dir: Dir, Address: Address, Off: o.Off, More: o.Config}.TOML()
}

// StartContainerd starts the daemon inside and returns when it listens.
func StartContainerd(ctx context.Context, o ContainerdOptions) (*Containerd, error) {
	if err := os.MkdirAll(Dir, 0o711); err != nil {
		return nil, err
	}
	d := &Containerd{Address: Address, Log: filepath.Join(Dir, "containerd.log"), again: o.Again, exited: make(chan struct{})}
	config := o.File
	if config == "" {
		config = filepath.Join(Dir, "containerd.toml")
		if err := os.WriteFile(config, o.TOML(), 0o600); err != nil {
			return nil, err
		}
	}
	binary, err := LookPath("containerd", o.Path)
	if err != nil {
		return nil, err
	}
	d.cmd = func() *exec.Cmd {
		cmd := exec.Command(binary, "--config", config)
		cmd.Dir, cmd.Env = "/", append(os.Environ(), "PATH="+o.Path, "XDG_RUNTIME_DIR="+Dir)
		if o.Node != "" {
			cmd.Env = append(cmd.Env, "CRSC_CONFIG="+o.Node)
		}
		return cmd
	}
	cmd, err := d.start()
	if err != nil {
		return nil, err
	}
	go d.keep(cmd)
	return d, d.awaitSocket(ctx)
}

func (d *Containerd) start() (*exec.Cmd, error) {
	log, err := os.OpenFile(d.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := d.cmd()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start containerd: %w", err)
	}
	d.starts.Add(1)
	return cmd, nil
}

// keep waits for the daemon's end, and starts it again if that is wanted. Who
// needs it finds out that it is gone: awaitSocket, or the suite that has killed it.
func (d *Containerd) keep(cmd *exec.Cmd) {
	defer close(d.exited)
	for {
		_ = cmd.Wait()
		if d.again == 0 {
			return
		}
		time.Sleep(d.again)
		var err error
		if cmd, err = d.start(); err != nil {
			return
		}
	}
}

func (d *Containerd) awaitSocket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, containerdStart)
	defer cancel()
	for {
		if c, err := net.Dial("unix", d.Address); err == nil {
			return c.Close()
		}
		select {
		case <-d.exited:
			return fmt.Errorf("containerd ended during its start:\n%s", d.LogTail(20))
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer: %w\n%s", ctx.Err(), d.LogTail(20))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// LogTail returns the last lines of the daemon's log, which is also the shims'.
func (d *Containerd) LogTail(lines int) string {
	data, err := os.ReadFile(d.Log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// LookPath finds a program in a PATH that is not the caller's own.
func LookPath(name, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", errors.New(name + " is not in " + path + ": run testing/env/install")
}
