package netproxy

import (
	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/session"
)

// past keeps what is known of sessions that have ended, for as long as the journal has
// their records: a pool that closes its connections has made requests on them that a
// replay must find.
type past struct {
	sessions map[uint32]pastSession // by connection number
	size     int                    // of all, in bytes
	sweepAt  int                    // how many there may be before the journal's start is looked at
}

type pastSession struct {
	tracker *session.Tracker
	size    int
	end     journal.Position // its records are before
}

const (
	// pastLimit bounds what is kept, in bytes. When that is not enough all is
	// forgotten, and servers to which there were such sessions are dealt with as
	// those of whose protocol nothing is known.
	pastLimit = 16 << 20
	// pastSweep is how many sessions are kept without a look at the journal.
	pastSweep = 64
)

// keep takes the session of a connection that ends.
func (s *past) keep(id uint32, t *session.Tracker, j *journal.Journal) {
	if s.sessions == nil {
		s.sessions, s.sweepAt = map[uint32]pastSession{}, pastSweep
	}
	e := pastSession{t, t.Size(), j.End()}
	s.size += e.size - s.sessions[id].size
	s.sessions[id] = e
	if len(s.sessions) >= s.sweepAt || s.size > pastLimit {
		s.sweep(j.Start())
	}
}

// sweep forgets the sessions of which the journal has no records any more.
func (s *past) sweep(start journal.Position) {
	for id, e := range s.sessions {
		if e.end <= start {
			s.size -= e.size
			delete(s.sessions, id)
		}
	}
	if s.size > pastLimit {
		s.forget()
	}
	s.sweepAt = max(2*len(s.sessions), pastSweep)
}

func (s *past) forget() { *s = past{} }

// of returns the session of a connection that has ended; nil: it is not known.
func (s *past) of(id uint32) *session.Tracker { return s.sessions[id].tracker }
