package criu

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// inPidNamespaceOf reports whether a process lives in the PID namespace that
// other is in. It is false for a process that has ended.
func inPidNamespaceOf(pid, other int) bool {
	a, err := inode(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return false
	}
	b, err := inode(fmt.Sprintf("/proc/%d/ns/pid", other))
	return err == nil && a == b
}

// isChild reports whether pid is a child of the calling process.
func isChild(pid int) bool {
	f, err := statFields(pid)
	return err == nil && f[1] == strconv.Itoa(os.Getpid())
}

// startTime returns when a process started, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	f, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// statFields returns the fields of /proc/PID/stat (proc_pid_stat(5)) from the
// third, the state, on; 22 of them at least.
func statFields(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// The command name may contain blanks and brackets; it ends at the last one.
	end := strings.LastIndexByte(string(b), ')')
	if f := strings.Fields(string(b[end+1:])); end > 0 && len(f) > 21 {
		return f, nil
	}
	return nil, fmt.Errorf("cannot parse /proc/%d/stat", pid)
}

// nsFile returns the name in /proc/PID/ns of a sort of namespace.
func nsFile(t specs.LinuxNamespaceType) string {
	for _, n := range nsFiles {
		if n.typ == t {
			return n.file
		}
	}
	return string(t)
}
