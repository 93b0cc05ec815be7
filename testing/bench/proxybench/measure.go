package proxybench

import (
	"context"
	"fmt"
	"slices"

	"github.com/crsc-io/crsc/testing/bench"
)

const (
	// firstRequests warm a target up and tell how fast it is; with a pipeline
	// five times as many do.
	firstRequests = 4000
	// leastRequests give the 99.9th percentile something to stand on, and each
	// connection leastPerConnection requests that outweigh its opening, which costs
	// a proxy as much as six to ten of them. With a pipeline one stands for all that
	// are sent at once.
	leastRequests      = 4000
	leastPerConnection = 200
	mostForConnections = 25000
)

// series is what one target did in one cell, by round.
type series struct {
	rps, p50, p99, p999 bench.Sample
	cpu                 bench.Sample // processor time of the proxy, ms per 1,000 requests
}

func (s *series) add(r run) {
	s.rps, s.p50 = append(s.rps, r.rps), append(s.p50, r.p50)
	s.p99, s.p999 = append(s.p99, r.p99), append(s.p999, r.p999)
}

// addCost adds what the target's proxy has used since before, in seconds.
func (s *series) addCost(t *target, before float64, requests int) error {
	after, err := t.restingTime()
	if err == nil && t.pid != 0 {
		s.cpu = append(s.cpu, (after-before)*1e6/float64(requests))
	}
	return err
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
		requests[t] = max(leastRequests, min(leastPerConnection*c.conns, mostForConnections)*c.pipeline, int(first.rps*length.Seconds()))
		m.of[t] = &series{}
	}
	for round := range b.rounds {
		for _, t := range turn(targets, round) {
			if err := m.round(ctx, l.rig, t, requests[t]); err != nil {
				return nil, fmt.Errorf("%s, %s: %w", t.title, c, err)
			}
		}
	}
	return m, nil
}

// turn is the order of the targets in a round: everyone is first in turn, and
// nobody always comes after the same one.
func turn(targets []*target, round int) []*target {
	n := len(targets)
	out := make([]*target, 0, n)
	for i := range n {
		out = append(out, targets[(round/2+i)%n])
	}
	if round%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

// round measures one target once.
func (m *measured) round(ctx context.Context, rig *bench.Rig, t *target, requests int) error {
	before, err := t.processorTime()
	if err != nil {
		return err
	}
	r, err := redisBenchmark(ctx, rig, t.addr, m.cell, requests)
	if err != nil {
		return err
	}
	m.of[t].add(r)
	return m.of[t].addCost(t, before, r.requests)
}
