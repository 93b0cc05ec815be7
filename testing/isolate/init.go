package isolate

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
)

// runInit is process 1: it furnishes the namespaces, starts the program, and
// reaps until that has ended. Its exit ends all others.
func runInit(o Options) (status int, err error) {
	if err := furnish(o); err != nil {
		return 1, fmt.Errorf("isolate: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	if err := os.Setenv(stageVariable, stageInside); err != nil {
		return 1, err
	}
	// Not os/exec: its wait and the loop below would take each other's children.
	main, err := syscall.ForkExec(self, os.Args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 1, err
	}
	for {
		var w syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &w, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, fmt.Errorf("isolate: wait: %w", err)
		case pid == main && w.Exited():
			return w.ExitStatus(), nil
		case pid == main && w.Signaled():
			return 128 + int(w.Signal()), nil
		}
	}
}

func furnish(o Options) error {
	if err := mountAll(o); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
