package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"time"
)

// crash is one kill, and what became of it.
type crash struct {
	killed    time.Time
	live      time.Time // when the status file said so
	pid       int
	recovered *recovery // nil: it was not
}

// play is the load phase: the kills at random moments, or a plain wait.
func (r *run) play(ctx context.Context) error {
	if r.o.Kills == 0 {
		return r.wait(ctx, r.o.Duration)
	}
	gap := r.o.Duration / time.Duration(r.o.Kills)
	for range r.o.Kills {
		moment := time.Duration((0.5 + rand.Float64()) * float64(gap))
		if err := r.wait(ctx, moment); err != nil {
			return err
		}
		if err := r.kill(ctx); err != nil {
			return err
		}
		if last := r.crash[len(r.crash)-1]; last.recovered == nil {
			return nil // the report says so; there is nothing left to kill
		}
		if err := r.watch.sample(r.env.StatusFile(containerID)); err != nil {
			return err
		}
	}
	return r.wait(ctx, gap/2)
}

// wait shows progress meanwhile.
func (r *run) wait(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		r.progress()
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		if err := pause(ctx, min(left, 200*time.Millisecond)); err != nil {
			return err
		}
	}
}

// kill kills the container's init and waits until the shim reports it live.
func (r *run) kill(ctx context.Context) error {
	pid, state, err := r.env.Task(ctx, containerID)
	if err != nil {
		return err
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !strings.Contains(string(groups), "/"+containerID) {
		return fmt.Errorf("pid %d (%s) is not in the container's cgroup: %w", pid, state, err)
	}
	c := crash{pid: pid, killed: time.Now()}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	c.recovered, err = r.awaitRecovery(ctx, c.killed)
	if err != nil {
		return err
	}
	c.live = time.Now()
	r.crash = append(r.crash, c)
	return nil
}

// awaitRecovery returns nil if the exit was reported instead, or time is up.
func (r *run) awaitRecovery(ctx context.Context, killed time.Time) (*recovery, error) {
	file := r.env.StatusFile(containerID)
	for n := 0; time.Since(killed) < readyTimeout; n++ {
		s, err := readStatus(file)
		if err == nil && s.Phase == phaseRunning {
			if last := s.lastRecovery(); last != nil && last.Time.After(killed) {
				return last, nil
			}
		}
		// Now and then, in case there is nobody to write a status.
		if n%20 == 19 {
			_, state, err := r.env.Task(ctx, containerID)
			if err != nil || state == "STOPPED" {
				return nil, ctx.Err()
			}
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
