package criu

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// From linux/sched.h and sched(7).
const (
	schedRR          = 2
	schedResetOnFork = 0x01
)

// hasten lets a process run before all ordinary ones: as long as tasks are
// frozen, everybody waits for it. Its children are ordinary. A kernel that
// grants no real time to the cgroup that it is in refuses (RT_GROUP_SCHED), as
// it does without CAP_SYS_NICE; then it runs like others.
func hasten(pid int) error {
	err := unix.SchedSetAttr(pid, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: schedRR, Priority: 1, Flags: schedResetOnFork,
	}, 0)
	if err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("give process %d priority: %w", pid, err)
	}
	return nil
}
