package proxybench

import (
	"context"
	"fmt"

	"github.com/crsc-io/crsc/testing/bench"
)

const (
	// firstRequests warm a target up and tell how fast it is; with a pipeline
	// five times as many do.
	firstRequests = 4000
	// leastRequests give the 99.9th percentile something to stand on, and each
	// connection leastPerConnection requests that outweigh its opening.
	leastRequests      = 4000
	leastPerConnection = 20
)

// series is what one target did in one cell, by round.
type series struct {
	rps, p50, p99, p999 bench.Sample
}

// measured is one cell.
type measured struct {
	cell
	targets []*target
	of      map[*target]*series
}

// measure lets the targets take turns.
func (b *Benchmark) measure(ctx context.Context, l *lab, c cell, targets []*target) (*measured, error) {
	l.rig.Say("%s: %d rounds of %d targets", c, b.rounds, len(targets))
	m := &measured{cell: c, targets: targets, of: map[*target]*series{}}
	requests := map[*target]int{}
	for _, t := range targets {
		first, err := redisBenchmark(ctx, l.rig, t.addr, c, firstRequests*min(c.pipeline, 5))
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", t.title, c, err)
		}
		length := b.length
		if c.conns > 100 {
			length *= 2 // connecting takes its part
		}
		requests[t] = max(leastRequests, leastPerConnection*c.conns, int(first.rps*length.Seconds()))
		m.of[t] = &series{}
	}
	for round := range b.rounds {
		for i := range targets {
			t := targets[(round+i)%len(targets)]
			r, err := redisBenchmark(ctx, l.rig, t.addr, c, requests[t])
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", t.title, c, err)
			}
			s := m.of[t]
			s.rps, s.p50 = append(s.rps, r.rps), append(s.p50, r.p50)
			s.p99, s.p999 = append(s.p99, r.p99), append(s.p999, r.p999)
		}
	}
	return m, nil
}
