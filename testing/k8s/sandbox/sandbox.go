package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy is returned while another sandbox of the same name runs.
var ErrBusy = errors.New("the sandbox is in use")

// stage tells a program how far inside it is.
const stage = "CRSC_SANDBOX_STAGE"

// Inside says that this process is the program in the sandbox, or on the way
// there; then Enter must be called first of all.
func Inside() bool { return os.Getenv(stage) != "" }

// Dir is where the sandbox of a name keeps its files.
func Dir(name string) string { return filepath.Join(os.TempDir(), name) }

// Run runs this very program again with the same arguments in a new sandbox,
// and returns its exit status. The name is that of its directory in the
// temporary directory and of its cgroups; two with the same name exclude each
// other. Ending ctx kills all of it.
func Run(ctx context.Context, name string) (status int, err error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("a sandbox needs root: namespaces, mounts and cgroups")
	}
	unlock, err := lock(Dir(name) + ".lock")
	if err != nil {
		return 0, err
	}
	defer unlock()
	if err := clean(name); err != nil {
		return 0, fmt.Errorf("what an earlier run left: %w", err)
	}
	if err := os.Mkdir(Dir(name), 0o755); err != nil {
		return 0, err
	}
	err = runInit(ctx, name)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		status, err = exit.ExitCode(), nil
	}
	return status, errors.Join(err, clean(name))
}

// runInit starts the first process of the namespaces and waits for its end. It
// dies with the thread that started it, hence with this process.
func runInit(ctx context.Context, name string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stage+"=init:"+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in new namespaces: %w", err)
	}
	return cmd.Wait()
}

// Enter goes on to the program itself: it returns in the process that is to run
// it, with everything set up, and the directory of the sandbox. In the first
// process of the namespaces it does not return: that one collects orphans until
// the program ends.
func Enter() (dir string, err error) {
	kind, name, ok := strings.Cut(os.Getenv(stage), ":")
	if !ok {
		return "", fmt.Errorf("%s=%q: not in a sandbox", stage, kind)
	}
	if err := os.Unsetenv(stage); err != nil {
		return "", err
	}
	if kind == "program" {
		return Dir(name), nil
	}
	if err := furnish(Dir(name)); err != nil {
		return "", fmt.Errorf("sandbox: %w", err)
	}
	status, err := collect(name)
	if err != nil {
		return "", fmt.Errorf("sandbox: %w", err)
	}
	os.Exit(status)
	return "", nil
}

// collect starts the program and reaps, as the init of the namespaces, until
// it has ended.
func collect(name string) (status int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(self, os.Args, &syscall.ProcAttr{
		Env: append(os.Environ(), stage+"=program:"+name), Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 0, err
	}
	for {
		var ws syscall.WaitStatus
		switch got, err := syscall.Wait4(-1, &ws, 0, nil); {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case got == pid && ws.Exited():
			return ws.ExitStatus(), nil
		case got == pid:
			return 128 + int(ws.Signal()), nil
		}
	}
}

// lock takes a lock file without waiting.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrBusy, path, err)
	}
	return func() {
		_ = os.Remove(path) // under the lock; a later run makes it anew
		f.Close()
	}, nil
}

// clean removes the files and cgroups of a sandbox whose processes are gone or
// going.
func clean(name string) error {
	deadline := time.Now().Add(20 * time.Second)
	for _, hierarchy := range cgroupMounts() {
		if err := removeCgroups(filepath.Join(hierarchy, name), deadline); err != nil {
			return err
		}
	}
	return os.RemoveAll(Dir(name))
}
