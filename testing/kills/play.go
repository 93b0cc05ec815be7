package kills

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
)

// Plan says what to kill.
type Plan struct {
	Env      *env.Env
	ID       string        // of the container
	Kills    int           // how often
	Gap      time.Duration // between two kills, on average, and after the last
	Limit    time.Duration // of the wait for a recovery
	Progress io.Writer
}

// Count is what a run has shown, as a part of its report.
type Count struct {
	Kills     int `json:"kills"`
	Recovered int `json:"recovered"`
	// Retried counts the recoveries whose first way failed, SlowestMS is what the
	// longest took.
	Retried   int     `json:"retried"`
	SlowestMS float64 `json:"slowest_recovery_ms"`
	// Differing counts the connections whose replay came out differently.
	Differing int `json:"differing"`
	// Faults say what was wrong; empty: nothing.
	Faults []string `json:"faults,omitempty"`
}

// Play kills the container's init at random moments.
//
// Errors: the context's; a container that is not there.
func Play(ctx context.Context, p Plan) (Count, error) {
	var c Count
	for range p.Kills {
		moment := time.Duration((0.5 + rand.Float64()) * float64(p.Gap))
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-time.After(moment):
		}
		if err := p.kill(ctx); err != nil {
			return c, err
		}
		c.Kills++
		if !c.awaitRecovery(ctx, p) {
			return c, ctx.Err() // the count says so; there is nothing left to kill
		}
		fmt.Fprintf(p.Progress, "\r%d of %d kills", c.Kills, p.Kills)
	}
	fmt.Fprintln(p.Progress)
	time.Sleep(p.Gap)
	return c, nil
}

func (p Plan) kill(ctx context.Context) error {
	pid, state, err := p.Env.Task(ctx, p.ID)
	if err != nil {
		return err
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !strings.Contains(string(groups), "/"+p.ID) {
		return fmt.Errorf("pid %d (%s) is not in the container's cgroup: %w", pid, state, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	return nil
}

// awaitRecovery waits until as many crashes were recovered as there were kills.
func (c *Count) awaitRecovery(ctx context.Context, p Plan) bool {
	for begun := time.Now(); time.Since(begun) < p.Limit && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		s, err := status.Read(filepath.Dir(p.Env.StatusFile(p.ID)))
		if err != nil {
			continue
		}
		if s.RecoveryCount >= c.Kills && s.Phase == "running" {
			c.Recovered = s.RecoveryCount
			last := s.Recoveries[len(s.Recoveries)-1]
			c.Differing += int(last.Differing)
			c.SlowestMS = max(c.SlowestMS, last.TotalMS)
			if last.Attempts > 1 {
				c.Retried++
			}
			return true
		}
		if s.Phase == "stopped" {
			c.Faults = append(c.Faults, "the exit was reported: "+s.Reason)
			return false
		}
	}
	return false
}

// Fault is something that must not be.
type Fault struct {
	Is   bool
	What string
}

// Judge adds what is wrong to the faults, and returns failed if there are any.
func (c *Count) Judge(failed error, list []Fault) error {
	for _, f := range append([]Fault{{c.Recovered != c.Kills, "a crash was not recovered"}}, list...) {
		if f.Is {
			c.Faults = append(c.Faults, f.What)
		}
	}
	if len(c.Faults) > 0 {
		return failed
	}
	return nil
}
