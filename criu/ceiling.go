package criu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Ceiling is how much a container's processes may have of what CRIU sets with
// the host's rights, as it is in the images: hard resource limits, the score that
// protects from the OOM killer, priority.
type Ceiling struct {
	// Limits and Priority say what of it holds; a container that may raise its
	// own is not bound by it.
	Limits, Priority bool

	hard [rlimits]uint64
	oom  int
	attr unix.SchedAttr
}

// rlimits is RLIM_NLIMITS.
const rlimits = unix.RLIMIT_RTTIME + 1

// CeilingOf takes what a process has for the ceiling of others.
func CeilingOf(pid int) (*Ceiling, error) {
	c := &Ceiling{Limits: true, Priority: true}
	limits, err := limitsOf(pid)
	if err != nil {
		return nil, err
	}
	for i, l := range limits {
		c.hard[i] = l.Max
	}
	attr, err := unix.SchedGetAttr(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("priority of process %d: %w", pid, err)
	}
	c.attr = unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: attr.Policy, Nice: attr.Nice, Priority: attr.Priority}
	c.oom, err = oomScoreAdj(pid)
	return c, err
}

// limitsOf reads /proc/PID/limits, which takes no CAP_SYS_RESOURCE as prlimit(2)
// does for a process of another user. The lines are in the order of the numbers.
func limitsOf(pid int) (out [rlimits]unix.Rlimit, err error) {
	file := fmt.Sprintf("/proc/%d/limits", pid)
	b, err := os.ReadFile(file)
	if err != nil {
		return out, err
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) < 1+rlimits {
		return out, fmt.Errorf("%s: %d lines", file, len(lines))
	}
	for i := range out {
		const nameWidth = 26
		line := lines[1+i]
		fields := strings.Fields(line[min(nameWidth, len(line)):])
		if len(fields) < 2 {
			return out, fmt.Errorf("%s: %q", file, line)
		}
		for _, f := range []struct {
			to   *uint64
			text string
		}{{&out[i].Cur, fields[0]}, {&out[i].Max, fields[1]}} {
			if *f.to, err = parseLimit(f.text); err != nil {
				return out, fmt.Errorf("%s: %q: %w", file, line, err)
			}
		}
	}
	return out, nil
}

func parseLimit(text string) (uint64, error) {
	if text == "unlimited" {
		return unix.RLIM_INFINITY, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

func oomScoreAdj(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(b)))
}

// lower brings a process below the ceiling.
func (c *Ceiling) lower(pid int) error {
	if c == nil {
		return nil
	}
	var errs []error
	if c.Limits {
		errs = append(errs, c.lowerLimits(pid))
	}
	if c.Priority {
		errs = append(errs, c.lowerPriority(pid))
	}
	return errors.Join(errs...)
}

func (c *Ceiling) lowerLimits(pid int) error {
	limits, err := limitsOf(pid)
	if err != nil {
		return err
	}
	for i, l := range limits {
		hard := c.hard[i]
		if l.Max <= hard {
			continue
		}
		if err := unix.Prlimit(pid, i, &unix.Rlimit{Cur: min(l.Cur, hard), Max: hard}, nil); err != nil {
			return fmt.Errorf("limit %d of process %d: %w", i, pid, err)
		}
	}
	oom, err := oomScoreAdj(pid)
	if err != nil || oom >= c.oom {
		return err
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(c.oom)), 0)
}

func (c *Ceiling) lowerPriority(pid int) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, e := range tasks {
		tid, err := strconv.Atoi(filepath.Base(e.Name()))
		if err != nil {
			return err
		}
		attr, err := unix.SchedGetAttr(tid, 0)
		if err == nil && (attr.Policy == unix.SCHED_DEADLINE || attr.Priority > c.attr.Priority || attr.Nice < c.attr.Nice) {
			err = unix.SchedSetAttr(tid, &c.attr, 0)
		}
		if err != nil {
			return fmt.Errorf("priority of task %d: %w", tid, err)
		}
	}
	return nil
}
