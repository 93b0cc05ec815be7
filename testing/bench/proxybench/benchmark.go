package proxybench

import (
	"context"
	"errors"
	"flag"
	"regexp"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
)

// Benchmark implements bench.Benchmark.
type Benchmark struct {
	rounds   int
	length   time.Duration
	bulk     int
	variants bool
	inside   bool
	only     *regexp.Regexp
	rival    string
}

// Name implements bench.Benchmark.
func (b *Benchmark) Name() string { return "proxy" }

// Flags implements bench.Benchmark.
func (b *Benchmark) Flags(f *flag.FlagSet) {
	f.IntVar(&b.rounds, "rounds", 9, "how often each target is measured in each cell")
	f.DurationVar(&b.length, "length", 200*time.Millisecond, "length of one measurement, roughly; longer is steadier")
	f.IntVar(&b.bulk, "bulk", 100, "MB to transfer in each direction")
	f.BoolVar(&b.variants, "variants", true, "compare orders, durability classes and checkpoints too")
	f.BoolVar(&b.inside, "containers", true, "measure Redis in containers; without, only servers and a proxy outside of them")
	f.StringVar(&b.rival, "rival", "", "another build of this `program`, whose proxy is measured beside ours outside of containers")
	b.only = regexp.MustCompile("")
	f.Func("only", "measure only loads whose metric matches this `regexp`, such as redis_set_50$", func(s string) (err error) {
		b.only, err = regexp.Compile(s)
		return err
	})
}

// Run implements bench.Benchmark.
func (b *Benchmark) Run(ctx context.Context, rig *bench.Rig, out *bench.Results) error {
	if b.inside {
		if err := b.containers(ctx, rig, out); err != nil {
			return err
		}
	}
	return b.many(ctx, rig, out)
}

// containers measures what users run: the shim, with Redis in a container.
func (b *Benchmark) containers(ctx context.Context, rig *bench.Rig, out *bench.Results) (err error) {
	l, err := newLab(ctx, rig)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return err
	}
	if err := b.compare(ctx, l, out); err != nil || !b.variants {
		return err
	}
	return b.vary(ctx, l, out)
}

// compare is the main table: direct, HAProxy, ours.
func (b *Benchmark) compare(ctx context.Context, l *lab, out *bench.Results) error {
	main := []*target{l.direct, l.haproxy, l.ours}
	var cells []*measured
	for _, c := range grid() {
		if !b.only.MatchString(c.metric()) {
			continue
		}
		targets := main
		if c.op == "set" && c.conns == 50 {
			targets = append(targets[:3:3], l.haproxyAll)
		}
		m, err := b.measure(ctx, l, c, targets)
		if err != nil {
			return err
		}
		m.report(out, l)
		cells = append(cells, m)
	}
	printGrid(out, cells, main)
	if !b.only.MatchString("bulk") {
		return l.check()
	}
	moved, err := b.transfer(ctx, l, append(main, l.haproxyAll))
	if err != nil {
		return err
	}
	moved.report(out, l)
	moved.print(out, "Bulk transfer over one connection")
	return l.check()
}

// vary compares our own options with each other.
func (b *Benchmark) vary(ctx context.Context, l *lab, out *bench.Results) error {
	if err := l.startVariants(ctx); err != nil {
		return err
	}
	targets := append([]*target{l.direct, l.ours}, l.variants...)
	var cells []*measured
	for _, c := range []cell{{"set", 50, 1}, {"set", 50, 16}} {
		m, err := b.measure(ctx, l, c, targets)
		if err != nil {
			return err
		}
		m.reportVariants(out, l)
		cells = append(cells, m)
	}
	printVariants(out, cells, l)
	if !b.only.MatchString("bulk") {
		return l.check()
	}
	moved, err := b.transfer(ctx, l, targets)
	if err != nil {
		return err
	}
	moved.reportVariants(out, l)
	moved.print(out, "Bulk transfer, our options")
	return l.check()
}
