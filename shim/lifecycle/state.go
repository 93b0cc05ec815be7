package lifecycle

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/log"
)

// State returns a snapshot of init, or of the exec of that ID. It never waits.
// An exec of a paused container is reported as paused.
//
// Errors: ErrNoProcess.
func (c *Container) State(execID string) (ProcessState, error) {
	p, err := c.process(execID)
	if err != nil {
		return ProcessState{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.stateLocked(p)
	if p != c.init && c.init.phase == PhasePaused {
		st.Phase = PhasePaused
	}
	return st, nil
}

func (c *Container) stateLocked(p *process) ProcessState {
	id := p.id
	if id == "" {
		id = c.id
	}
	return ProcessState{ID: id, Pid: p.pid, Phase: p.phase, Pausing: c.pausing, Stdio: p.stdio, Exit: p.exit}
}

// ProcessInfo is one process of the container.
type ProcessInfo struct {
	Pid int
	// ExecID is set for the process of an exec.
	ExecID string
}

// Pids lists the processes of the container: those in its cgroup, and its init
// for as long as it is not said to have ended. So the list of a container that is
// being recovered, or whose end was not noticed yet, is never empty: a
// containerd that starts takes the shim of an empty list for a leaked one.
//
// Errors: the context's, runc's.
func (c *Container) Pids(ctx context.Context) ([]ProcessInfo, error) {
	c.mu.Lock()
	init, phase, cg := c.init.pid, c.init.phase, c.cgroup
	execs := make(map[int]string)
	for id, p := range c.execs {
		if p.pid != 0 {
			execs[p.pid] = id
		}
	}
	c.mu.Unlock()
	alive := init != 0 && phase != PhaseStopped
	var pids []int
	if phase == PhaseRecovering {
		if cg != nil {
			pids = cg.pids()
		}
	} else {
		var err error
		if pids, err = c.runc.Ps(ctx, c.id); err != nil {
			if !alive {
				return nil, err
			}
			log.G(ctx).WithError(err).Warn("cannot list the container's processes")
		}
	}
	if alive && !slices.Contains(pids, init) {
		pids = append(pids, init)
	}
	infos := make([]ProcessInfo, 0, len(pids))
	for _, pid := range pids {
		infos = append(infos, ProcessInfo{Pid: pid, ExecID: execs[pid]})
	}
	return infos, nil
}

// Stats returns the metrics message of the cgroup's version. While recovering,
// when the cgroup may be gone, it is the last that was asked for.
//
// Errors: ErrNoCgroup, and those of reading it.
func (c *Container) Stats() (any, error) {
	c.mu.Lock()
	recovering, guarded := c.init.phase == PhaseRecovering, c.guard != nil
	cg, last := c.cgroup, c.stats
	c.mu.Unlock()
	if cg == nil {
		return nil, fmt.Errorf("%s: %w", c.id, ErrNoCgroup)
	}
	if recovering && last != nil && cg.gone() {
		return last, nil
	}
	stats, err := cg.stats()
	if err != nil {
		if recovering && last != nil {
			return last, nil
		}
		return nil, err
	}
	if guarded && !recovering {
		c.mu.Lock()
		c.stats = stats
		c.mu.Unlock()
	}
	return stats, nil
}
