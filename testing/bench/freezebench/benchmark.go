package freezebench

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
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
	checkpoints, large, others int
	interval                   time.Duration
	only, rivals               string
}

// Name implements bench.Benchmark.
func (b *Benchmark) Name() string { return "freeze" }

// Flags implements bench.Benchmark.
func (b *Benchmark) Flags(f *flag.FlagSet) {
	f.IntVar(&b.checkpoints, "checkpoints", 100, "checkpoints of the small Redis in each scenario")
	f.IntVar(&b.large, "large", 100, "checkpoints of the Redis with 256 MB")
	f.IntVar(&b.others, "others", 20, "checkpoints by each of those that are compared, in each scenario")
	f.DurationVar(&b.interval, "interval", 200*time.Millisecond, "checkpoint interval of the small Redis")
	f.StringVar(&b.only, "scenarios", "small_idle,small_probed,small,256mb", "which to run")
	f.StringVar(&b.rivals, "rivals", "disk,runc,podman", "what to compare with")
}

func (b *Benchmark) scenarios() []scenario {
	all := []scenario{
		{name: "small_idle", title: "small Redis, idle", count: b.checkpoints},
		{name: "small_probed", title: "small Redis, one client back to back", count: b.checkpoints, probe: true},
		{name: "small", title: "small Redis, 50 connections", count: b.checkpoints, probe: true, connections: 50},
		{name: "256mb", title: "256 MB Redis, one client back to back", count: b.large, probe: true, heapMB: heapMB},
	}
	return slices.DeleteFunc(all, func(s scenario) bool { return !listed(b.only, s.name) })
}

func listed(list, name string) bool { return slices.Contains(strings.Split(list, ","), name) }

// rival is somebody else who makes checkpoints.
type rival struct {
	name, title string
	source      func(interval time.Duration) source
}

func (b *Benchmark) compared() []rival {
	all := []rival{
		{"disk", "ours, with the images on disk", func(i time.Duration) source { return &shimSource{interval: i, disk: true} }},
		{"runc", "runc checkpoint --leave-running", func(i time.Duration) source { return &runcSource{interval: i} }},
		{"podman", "podman container checkpoint --leave-running", func(i time.Duration) source { return &podmanSource{interval: i} }},
	}
	return slices.DeleteFunc(all, func(r rival) bool { return !listed(b.rivals, r.name) })
}

// Run implements bench.Benchmark.
func (b *Benchmark) Run(ctx context.Context, rig *bench.Rig, out *bench.Results) error {
	var rows []row
	for _, s := range b.scenarios() {
		interval := b.interval
		if s.heapMB > 0 {
			interval = largeInterval
		}
		rig.Say("%s: %d checkpoints", s.title, s.count)
		ours, err := s.run(ctx, rig, &shimSource{interval: interval})
		if err != nil {
			return err
		}
		ours.report(out)
		r := row{ours: ours, theirs: map[string]*outcome{}}
		s.count = min(s.count, b.others)
		for _, v := range b.compared() {
			rig.Say("%s: %d checkpoints, %s", s.title, s.count, v.title)
			o, err := s.run(ctx, rig, v.source(interval))
			if err != nil {
				return err
			}
			o.reportBeside(out, v, ours)
			r.theirs[v.name] = o
		}
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		return fmt.Errorf("no scenario %q", b.only)
	}
	printTables(out, rows, b.compared())
	return nil
}
