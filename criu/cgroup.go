package criu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// joinCgroups moves a process into each of the cgroup directories.
func joinCgroups(pid int, dirs []string) error {
	for _, dir := range dirs {
		f, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
		_, err = f.WriteString(strconv.Itoa(pid))
		f.Close()
		if err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// cgroupPids returns the processes in a cgroup directory itself.
func cgroupPids(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for line := range bytes.Lines(b) {
		pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
		if err != nil {
			return nil, fmt.Errorf("%s: cgroup.procs: %w", dir, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// checkThawed returns ErrPaused if one of the cgroups is frozen or freezing.
func checkThawed(dirs []string) error {
	for _, dir := range dirs {
		v1, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
		if err == nil && !bytes.HasPrefix(v1, []byte("THAWED")) {
			return ErrPaused
		}
		v2, err2 := os.ReadFile(filepath.Join(dir, "cgroup.freeze"))
		if err2 == nil && bytes.HasPrefix(v2, []byte("1")) {
			return ErrPaused
		}
		for _, err := range []error{err, err2} {
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
