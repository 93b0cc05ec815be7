package env

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupMounts lists the mount points of all hierarchies, v1 and v2.
func cgroupMounts() []string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") {
			out = append(out, f[1])
		}
	}
	return out
}

// cgroupProcs lists the processes in a cgroup and below it.
func cgroupProcs(dir string) []int {
	var pids []int
	for _, d := range cgroupTree(dir) {
		data, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		if err != nil {
			continue // removed meanwhile
		}
		for _, word := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// thaw lets frozen processes of a cgroup and below it die.
func thaw(dir string) {
	for _, d := range cgroupTree(dir) {
		for file, value := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
			// Only the file of the hierarchy's own kind exists.
			if f, err := os.OpenFile(filepath.Join(d, file), os.O_WRONLY, 0); err == nil {
				f.WriteString(value)
				f.Close()
			}
		}
	}
}

// removeCgroup removes a cgroup and those below it. The kernel gives EBUSY for
// a moment after the last process died.
func removeCgroup(ctx context.Context, dir string) error {
	tree := cgroupTree(dir)
	for i := len(tree) - 1; i >= 0; i-- {
		for deadline := time.Now().Add(5 * time.Second); ; {
			err := unix.Rmdir(tree[i])
			if err == nil || errors.Is(err, unix.ENOENT) {
				break
			}
			if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) || ctx.Err() != nil {
				return fmt.Errorf("remove cgroup %s: %w", tree[i], err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// cgroupTree lists dir and the directories below it, parents first.
func cgroupTree(dir string) []string {
	var out []string
	// Vanishing directories are what we are here for.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			out = append(out, path)
		}
		return nil
	})
	return out
}
