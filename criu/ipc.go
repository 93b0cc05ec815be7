package criu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// sysvKinds are the System V objects of an IPC namespace: where the kernel
// lists them for the namespace of the reading thread, and how to remove one.
var sysvKinds = []struct {
	list   string
	remove func(id uintptr) error
}{
	{"/proc/sysvipc/shm", func(id uintptr) error { return errnoOf(unix.Syscall(unix.SYS_SHMCTL, id, ipcRemove, 0)) }},
	{"/proc/sysvipc/sem", func(id uintptr) error { return errnoOf(unix.Syscall6(unix.SYS_SEMCTL, id, 0, ipcRemove, 0, 0, 0)) }},
	{"/proc/sysvipc/msg", func(id uintptr) error { return errnoOf(unix.Syscall(unix.SYS_MSGCTL, id, ipcRemove, 0)) }},
}

const ipcRemove = 0 // IPC_RMID

func errnoOf(_, _ uintptr, e unix.Errno) error {
	if e == 0 || e == unix.EINVAL || e == unix.EIDRM { // the latter: it is gone
		return nil
	}
	return e
}

// eachSysV calls fn for each System V object in the calling thread's IPC
// namespace, with how to remove it. Kernels without System V IPC have none.
func eachSysV(fn func(remove func() error) error) error {
	for _, kind := range sysvKinds {
		b, err := os.ReadFile(kind.list)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		// A heading, then a line per object: key, identifier, ...
		_, rest, _ := bytes.Cut(b, []byte("\n"))
		for line := range bytes.Lines(rest) {
			f := bytes.Fields(line)
			if len(f) < 2 {
				continue
			}
			id, err := strconv.ParseUint(string(f[1]), 10, 32)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.list, err)
			}
			if err := fn(func() error { return kind.remove(uintptr(id)) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasSysV reports whether the IPC namespace bound at path has such objects.
func hasSysV(path string) (bool, error) {
	found := errors.New("found")
	err := onThread(func() error {
		if err := enter([]string{path}); err != nil {
			return err
		}
		return eachSysV(func(func() error) error { return found })
	})
	if errors.Is(err, found) {
		return true, nil
	}
	return false, err
}
