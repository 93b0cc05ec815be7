package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Process is a component that is started again whenever it ends, as a service
// manager does.
type Process struct {
	name string
	args []string
	env  []string
	log  string

	mu      sync.Mutex // guards what follows
	running *os.Process
	starts  int
	ended   bool

	stop chan struct{}
	done chan struct{}
}

// restartPause is what a service manager waits before it starts a service again.
const restartPause = 100 * time.Millisecond

// supervise starts a program; its output goes to a file in dir.
func supervise(dir string, env []string, name string, args ...string) (*Process, error) {
	p := &Process{
		name: name, args: args, env: env, log: filepath.Join(dir, filepath.Base(name)+".log"),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	cmd, err := p.start()
	if err != nil {
		return nil, err
	}
	go p.keep(cmd)
	return p, nil
}

func (p *Process) start() (*exec.Cmd, error) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(p.name, p.args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", p.env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = cmd.Process
	p.starts++
	return cmd, nil
}

func (p *Process) keep(cmd *exec.Cmd) {
	defer close(p.done)
	for {
		_ = cmd.Wait() // that it ended is all that matters; the log has why
		select {
		case <-p.stop:
			return
		case <-time.After(restartPause):
		}
		var err error
		if cmd, err = p.start(); err != nil {
			p.mu.Lock()
			p.ended = true
			p.mu.Unlock()
			return
		}
	}
}

// Signal signals the process that runs now.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running.Signal(sig)
}

// Starts counts how often it was started.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// Stop ends it for good: SIGTERM, and SIGKILL after five seconds.
func (p *Process) Stop() {
	close(p.stop)
	_ = p.Signal(syscall.SIGTERM) // it may have ended just now
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.Signal(syscall.SIGKILL)
		<-p.done
	}
}
