package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A CRIU that is killed during a dump leaves the tasks running, for ptrace lets
// go of them, but their TCP sockets in repair mode, in which every write fails:
// the application would close its connections. cure puts that right.
//
// CRIU's descriptors are closed, which tells us of its death, shortly before
// its tasks are let go. They are frozen at once, so that they do not meet a
// socket in repair mode.

// freeze stops or continues the tasks of a container without their noticing,
// and waits until they have stopped.
func freeze(cgroups []string, stop bool) error {
	for _, dir := range cgroups {
		file, yes, no := filepath.Join(dir, "freezer.state"), "FROZEN", "THAWED"
		if _, err := os.Stat(file); err != nil {
			file, yes, no = filepath.Join(dir, "cgroup.freeze"), "1", "0"
		}
		if _, err := os.Stat(file); err != nil {
			continue
		}
		if !stop {
			return os.WriteFile(file, []byte(no), 0)
		}
		return freezeAt(file, yes)
	}
	return errors.New("freeze: no freezer cgroup")
}

func freezeAt(file, yes string) error {
	deadline := time.Now().Add(time.Second)
	for {
		// Version 1 gives up on tasks that do not stop in time, and is asked
		// again by another write (kernel, freezer-subsystem.rst).
		if err := os.WriteFile(file, []byte(yes), 0); err != nil {
			return fmt.Errorf("freeze: %w", err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("freeze: %w", err)
		}
		if strings.TrimSpace(string(b)) == yes {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("freeze: %s stays %q", file, strings.TrimSpace(string(b)))
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// cure takes the TCP sockets of a frozen container out of repair mode.
func cure(cgroups []string) error {
	pids, err := cgroupPids(cgroups[0])
	if err != nil {
		return err
	}
	for _, pid := range pids {
		err := eachDescriptor(pid, func(_ int, link string, dup func() (int, error)) error {
			if !strings.HasPrefix(link, "socket:[") {
				return nil
			}
			own, err := dup()
			if err != nil {
				return nil // closed meanwhile
			}
			defer unix.Close(own)
			return cureSocket(own)
		})
		if err != nil && !gone(err) {
			return fmt.Errorf("cure process %d: %w", pid, err)
		}
	}
	return nil
}

func cureSocket(own int) error {
	proto, err := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || proto != unix.IPPROTO_TCP {
		return nil // not a socket that can be in repair mode
	}
	if on, err := unix.GetsockoptInt(own, unix.IPPROTO_TCP, unix.TCP_REPAIR); err != nil || on != 1 {
		return nil
	}
	if err := unix.SetsockoptInt(own, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF); err != nil {
		return fmt.Errorf("leave TCP repair mode: %w", err)
	}
	return nil
}
