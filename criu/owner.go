package criu

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// owner is the user and group that processes run as.
type owner struct{ uid, gid int }

func (o owner) String() string { return fmt.Sprintf("%d:%d", o.uid, o.gid) }

// ownerOf returns as whom CRIU has to be started to dump the tree of processes
// below init. A process with CAP_SYS_RESOURCE may be anybody. Others are told the
// resource limits of a process only if their real user and group are all of the
// user and group IDs of that process (check_prlimit_permission of the kernel's
// kernel/sys.c): all processes must run as one then.
func ownerOf(init int) (owner, error) {
	lacks, err := lacksSysResource()
	if err != nil || !lacks {
		return owner{}, err
	}
	first, err := processOwner(init)
	if err != nil {
		return owner{}, err
	}
	err = eachDescendant(init, func(pid int) error {
		o, err := processOwner(pid)
		if err != nil && gone(err) {
			return nil
		}
		if err == nil && o != first {
			err = fmt.Errorf("%w: process %d runs as %v and process %d as %v, and CAP_SYS_RESOURCE is missing, without which CRIU is told the limits of one user's processes only", ErrUnsupported, init, first, pid, o)
		}
		return err
	})
	return first, err
}

// processOwner reads the credentials of a process.
func processOwner(pid int) (owner, error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	b, err := os.ReadFile(path)
	if err != nil {
		return owner{}, err
	}
	uid, err := soleID(string(b), "Uid:")
	if err != nil {
		return owner{}, fmt.Errorf("%s: %w", path, err)
	}
	gid, err := soleID(string(b), "Gid:")
	if err != nil {
		return owner{}, fmt.Errorf("%s: %w", path, err)
	}
	return owner{uid, gid}, nil
}

// soleID returns the ID that the real, the effective and the saved one of a line
// of /proc/PID/status are.
func soleID(status, key string) (int, error) {
	_, line, ok := strings.Cut(status, "\n"+key)
	line, _, _ = strings.Cut(line, "\n")
	ids := strings.Fields(line)
	if !ok || len(ids) != 4 {
		return 0, fmt.Errorf("no line %q", key)
	}
	if ids[0] != ids[1] || ids[0] != ids[2] {
		return 0, fmt.Errorf("%w: real, effective and saved IDs differ (%s %s), and CAP_SYS_RESOURCE is missing, without which CRIU is not told the limits of such a process", ErrUnsupported, key, strings.Join(ids, " "))
	}
	return strconv.Atoi(ids[0])
}

// eachDescendant calls fn for each process below pid, parents first. Those that
// come and go meanwhile may be missed.
func eachDescendant(pid int, fn func(pid int) error) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	for _, task := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if err != nil {
			continue // the thread has ended
		}
		for _, s := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(s)
			if err != nil {
				return fmt.Errorf("children of process %d: %w", pid, err)
			}
			if err := fn(child); err != nil {
				return err
			}
			if err := eachDescendant(child, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// become makes o the real user and group of the calling thread. Its effective
// ones, and with them its capabilities, stay.
func (o owner) become() error {
	if o == (owner{}) {
		return nil
	}
	same := ^uintptr(0)
	// Not by package syscall, which would change all threads.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(o.gid), same, same); errno != 0 {
		return fmt.Errorf("become group %d: %w", o.gid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(o.uid), same, same); errno != 0 {
		return fmt.Errorf("become user %d: %w", o.uid, errno)
	}
	return nil
}
