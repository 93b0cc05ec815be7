package recovery

import (
	"fmt"
	"slices"
)

// rung is one way to recover.
type rung struct {
	from     *checkpoint // nil: a fresh start and the whole journal
	tolerate bool        // connections that come out differently are reset
	answers  bool        // input in the order in which it was answered
}

func (r rung) String() string {
	s := "the start of the container"
	if r.from != nil {
		s = fmt.Sprintf("checkpoint %d", r.from.seq)
	}
	if r.answers {
		s += ", in the order of answers"
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
		*to = append(*to, rung{from: cp})
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
		ways = append(ways, rung{}, rung{tolerate: true})
	}
	return ways
}
