package recoverybench

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/load"
)

// targetStallMS is what the median stall under light load must not exceed on
// two shared cores.
const targetStallMS = 90

// Benchmark implements bench.Benchmark.
type Benchmark struct {
	lightKills, loadKills int
	idleKills             int
	interval              time.Duration
}

// Name implements bench.Benchmark.
func (b *Benchmark) Name() string { return "recovery" }

// Flags implements bench.Benchmark.
func (b *Benchmark) Flags(f *flag.FlagSet) {
	f.IntVar(&b.lightKills, "light-kills", 40, "crashes under light load")
	f.IntVar(&b.loadKills, "load-kills", 20, "crashes under full load")
	f.IntVar(&b.idleKills, "idle-kills", 10, "crashes under light load with 1,000 and with 5,000 idle connections")
	f.DurationVar(&b.interval, "interval", time.Second, "checkpoint interval")
}

// Run implements bench.Benchmark.
func (b *Benchmark) Run(ctx context.Context, rig *bench.Rig, out *bench.Results) error {
	light := scenario{
		name: "light", kills: b.lightKills, pause: time.Second, interval: b.interval,
		load: load.Options{Connections: 5, Rate: 200},
		note: "5 connections, 200 requests/s",
	}
	full := scenario{
		name: "load", kills: b.loadKills, pause: 1500 * time.Millisecond, interval: b.interval,
		load: load.Options{Connections: 50},
		note: "50 connections, unpipelined, as fast as they can",
	}
	var done []*outcome
	all := []scenario{light, full}
	for _, n := range []int{1000, 5000} {
		s := light
		s.name, s.kills, s.idle = fmt.Sprintf("idle_%d", n), b.idleKills, n
		s.note = fmt.Sprintf("%d idle connections, and %s", n, light.note)
		all = append(all, s)
	}
	for _, s := range all {
		if s.kills == 0 {
			continue
		}
		rig.Say("%s: %d crashes, %s", s.name, s.kills, s.note)
		o, err := s.run(ctx, rig)
		if o != nil {
			o.report(out)
			done = append(done, o)
		}
		if err != nil {
			return err
		}
	}
	printTables(out, done)
	return nil
}
