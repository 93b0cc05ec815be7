package recovery

import (
	"time"

	"github.com/crsc-io/crsc/status"
)

// note takes input that can't be replayed. It does not block.
func (s *scheduler) note(in input) {
	s.mu.Lock()
	s.inputs.note(in)
	s.mu.Unlock()
	s.poke()
}

// execs takes the number of execs that run.
func (s *scheduler) execs(running int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inputs.sessions = running
}

// felt takes a measurement of the pressure.
func (s *scheduler) felt(now time.Time, l level) {
	s.mu.Lock()
	cause := s.pressure.look(now, l)
	if cause != "" {
		s.press = cause
	}
	s.mu.Unlock()
	if cause != "" {
		s.poke()
	}
}

// stdinAdvanced reports, once for each checkpoint, that standard input was
// written to after it.
func (s *scheduler) stdinAdvanced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin || s.last.mark == nil || !s.last.mark.StdinAdvanced() {
		return false
	}
	s.stdin = true
	return true
}

// firstNew is the number of the first connection that the last checkpoint does
// not have, and how many had been accepted until then.
func (s *scheduler) firstNew() (id uint32, accepted uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.firstNew, s.last.at.accepted
}

// crashed is told when the container has crashed.
func (s *scheduler) crashed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.target != nil {
		s.target.crashed(&s.last, s.journaled())
	}
}

// recovered is told of each recovery, and completes what the status says of it.
func (s *scheduler) recovered(st *status.Recovery, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.target != nil {
		s.target.recovered(st, &s.last)
	}
	if st.Checkpoint == 0 {
		// There are no checkpoints after a start from the beginning.
		s.last = made{begun: now, mark: s.last.mark}
	}
}

// describe completes a status.
func (s *scheduler) describe(st *status.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.UnreplayableSince, st.Unreplayable = nil, ""
	if at, what := s.inputs.oldest(s.last.begun); !at.IsZero() {
		st.UnreplayableSince, st.Unreplayable = &at, what
	}
	if s.target != nil {
		st.RecoveryTarget = s.target.status(&s.last, s.journaled())
	}
	if !s.cfg.Pressure.IsZero() {
		st.Pressure = s.pressure.status()
	}
}
