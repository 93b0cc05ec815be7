package recovery

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/crsc-io/crsc/netproxy"
)

// rung is one way to recover.
type rung struct {
	from     *checkpoint // nil: a fresh start and the whole journal
	tolerate bool        // connections that come out differently are reset
	answers  bool        // input in the order in which it was answered
	// late: the requests that nobody had answered come after all others, and last of all
	// those of the connections in last (replay.Plan.PutOff). tries is how often that was
	// tried.
	late  bool
	last  []uint32
	tries int
}

func (r rung) String() string {
	s := "the start of the container"
	if r.from != nil {
		s = fmt.Sprintf("checkpoint %d", r.from.seq)
	}
	if r.answers {
		s += ", in the order of answers"
	}
	if r.late {
		s += ", with what was not answered last"
	}
	if r.tolerate {
		s += ", tolerating differences"
	}
	return s
}

// ladder lists the ways to try, best first: the last checkpoint, those before
// it, and those that are under suspicion. A start from the beginning comes
// behind all that uses a checkpoint: it ends them. An application that needed the
// order of answers before is given it first, from each checkpoint.
func (g *guard) ladder() []rung {
	var ways, suspected []rung
	for _, cp := range slices.Backward(g.store.list) {
		to := &ways
		if g.rise.suspects(cp.seq) {
			to = &suspected
		}
		if g.byAnswers {
			*to = append(*to, rung{from: cp, answers: true})
		}
		*to = append(*to, rung{from: cp, late: g.late})
	}
	ways = append(ways, suspected...)
	if len(ways) > 0 {
		best := ways[0].from
		if !g.byAnswers {
			ways = slices.Insert(ways, 1, rung{from: best, answers: true})
		}
		ways = append(ways, rung{from: best, tolerate: true})
	}
	if g.reachesStart() {
		ways = append(ways, rung{late: g.late}, rung{tolerate: true})
	}
	return ways
}

const (
	// lateTries bounds how often one way is tried with requests put off, lateFor how long
	// after the crash that is begun once more: clients do not wait for ever.
	lateTries = 8
	lateFor   = 20 * time.Second
)

// again is the way once more after a failure, if that was because requests without a record
// had all connections of a pool: they come later then. Each time more of them are known.
func (r rung) again(err error) (rung, bool) {
	var crowded *netproxy.CrowdedError
	if !errors.As(err, &crowded) || r.answers || r.tolerate || r.tries == lateTries {
		return r, false
	}
	if r.late && len(crowded.Vain) == 0 {
		return r, false
	}
	r.late, r.last, r.tries = true, slices.Concat(r.last, crowded.Vain), r.tries+1
	return r, true
}
