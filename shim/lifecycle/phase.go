package lifecycle

import (
	"fmt"
	"slices"
)

// Phase is where a process is in its life.
type Phase uint8

// The phases. Execs know created, running, stopped and deleted only.
const (
	// PhaseCreated: runc has made the process, the user's program has not
	// started. A container created from a checkpoint has no process yet.
	PhaseCreated Phase = iota + 1
	// PhaseRunning: the user's program runs.
	PhaseRunning
	// PhasePaused: the cgroup is frozen on the orchestrator's request.
	PhasePaused
	// PhaseRecovering: init is dead, its exit is withheld by the guard.
	PhaseRecovering
	// PhaseStopped: the exit has been published.
	PhaseStopped
	// PhaseDeleted: nothing is left but the memory of it.
	PhaseDeleted
)

// String returns the name as containerd spells it.
func (p Phase) String() string {
	switch p {
	case PhaseCreated:
		return "created"
	case PhaseRunning:
		return "running"
	case PhasePaused:
		return "paused"
	case PhaseRecovering:
		return "recovering"
	case PhaseStopped:
		return "stopped"
	case PhaseDeleted:
		return "deleted"
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// successors returns the phases that may follow p.
func (p Phase) successors() []Phase {
	switch p {
	case PhaseCreated:
		return []Phase{PhaseRunning, PhaseStopped, PhaseDeleted}
	case PhaseRunning:
		return []Phase{PhasePaused, PhaseRecovering, PhaseStopped}
	case PhasePaused:
		return []Phase{PhaseRunning, PhaseStopped}
	case PhaseRecovering:
		return []Phase{PhaseRunning, PhaseStopped}
	case PhaseStopped:
		return []Phase{PhaseDeleted}
	}
	return nil
}

// to moves p to next.
//
// Errors: ErrTransition, and p unchanged, if next may not follow p.
func (p *Phase) to(next Phase) error {
	if !slices.Contains(p.successors(), next) {
		return fmt.Errorf("%s process cannot become %s: %w", *p, next, ErrTransition)
	}
	*p = next
	return nil
}
