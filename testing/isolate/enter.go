package isolate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// stageVariable tells the program what it was started as.
const stageVariable = "CRSC_ISOLATE"

const (
	stageInit   = "init"
	stageInside = "inside"
)

// Outside reports whether Enter has still to start the program once more: what
// needs the host belongs here.
func Outside() bool { return os.Getenv(stageVariable) == "" }

// Options of an isolation.
type Options struct {
	// Name is part of the cgroup's: a-z and 0-9.
	Name string
	// Unified makes the host look like one with cgroup v2 only. On a host that has
	// version 1 as well there are no controllers then: what limits and counts
	// memory is taken.
	Unified bool
	// Written are further directories of the host whose changes go to memory.
	Written []string
}

// Enter isolates the program. Outside it returns when the isolated program has
// ended, with its exit status (128 plus the signal that ended either), and the
// caller exits with it. Inside it returns at once and inside is true.
//
// Errors: not root, or a namespace or mount that the kernel refuses.
func Enter(o Options) (inside bool, status int, err error) {
	switch os.Getenv(stageVariable) {
	case stageInside:
		return true, 0, forget()
	case stageInit:
		status, err = runInit(o)
		return false, status, err
	}
	if os.Geteuid() != 0 {
		return false, 1, errors.New("isolate: run as root: namespaces and cgroups are needed")
	}
	status, err = enter(o.Name)
	if err != nil {
		err = fmt.Errorf("isolate: %w", err)
	}
	return false, status, err
}

// forget drops what leads to the world outside: a containerd and a node file of
// testing/env, should the program have been started in one.
func forget() error {
	var errs []error
	for _, name := range []string{stageVariable, "CONTAINERD_ADDRESS", "CONTAINERD_NAMESPACE", "CRSC_CONFIG"} {
		errs = append(errs, os.Unsetenv(name))
	}
	return errors.Join(errs...)
}

func enter(name string) (status int, err error) {
	g, err := newGroup(name)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	// The death signal is that of the thread which started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, err := startInit(g)
	if err != nil {
		return 1, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case s := <-signals:
		err = cmd.Process.Kill() // and with it everything inside
		<-ended
		return 128 + int(s.(syscall.Signal)), err
	case <-ended:
	}
	w := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if w.Signaled() {
		return 128 + int(w.Signal()), nil
	}
	return w.ExitStatus(), nil
}

// startInit starts this program in new namespaces. A cgroup namespace's root is
// the group in which the parent is at that moment.
func startInit(g *group) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageVariable+"="+stageInit)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWCGROUP,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := g.join(); err != nil {
		return nil, errors.Join(err, g.leave())
	}
	err = cmd.Start()
	return cmd, errors.Join(err, g.leave())
}
