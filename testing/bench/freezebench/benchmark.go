package freezebench

import (
	"context"
	"flag"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
)

const (
	// heapMB is the data in the large Redis.
	heapMB = 256
	// largeInterval leaves a large checkpoint the time to be written.
	largeInterval = time.Second
)

// Benchmark implements bench.Benchmark.
type Benchmark struct {
	checkpoints, large, runc int
	interval                 time.Duration
}

// Name implements bench.Benchmark.
func (b *Benchmark) Name() string { return "freeze" }

// Flags implements bench.Benchmark.
func (b *Benchmark) Flags(f *flag.FlagSet) {
	f.IntVar(&b.checkpoints, "checkpoints", 100, "checkpoints of the small Redis in each scenario")
	f.IntVar(&b.large, "large", 25, "checkpoints of the Redis with 256 MB")
	f.IntVar(&b.runc, "runc", 20, "checkpoints by runc in each scenario")
	f.DurationVar(&b.interval, "interval", 200*time.Millisecond, "checkpoint interval of the small Redis")
}

// Run implements bench.Benchmark.
func (b *Benchmark) Run(ctx context.Context, rig *bench.Rig, out *bench.Results) error {
	var ours, runcs []*outcome
	for _, s := range []scenario{
		{name: "small_idle", title: "small Redis, idle", count: b.checkpoints},
		{name: "small_probed", title: "small Redis, one client back to back", count: b.checkpoints, probe: true},
		{name: "small", title: "small Redis, 50 connections", count: b.checkpoints, probe: true, connections: 50},
		{name: "256mb", title: "256 MB Redis, one client back to back", count: b.large, probe: true, heapMB: heapMB},
	} {
		interval := b.interval
		if s.heapMB > 0 {
			interval = largeInterval
		}
		rig.Say("%s: %d checkpoints", s.title, s.count)
		o, err := s.run(ctx, rig, &shimSource{interval: interval})
		if err != nil {
			return err
		}
		ours = append(ours, o)
		s.count = min(s.count, b.runc)
		rig.Say("%s: %d checkpoints by runc", s.title, s.count)
		if o, err = s.run(ctx, rig, &runcSource{interval: interval}); err != nil {
			return err
		}
		runcs = append(runcs, o)
	}
	for i := range ours {
		ours[i].report(out, runcs[i])
	}
	printTable(out, ours, runcs)
	return nil
}
