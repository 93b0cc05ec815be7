package datagrambench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/datagrams"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// ServeCommand makes the command be the server.
const ServeCommand = "-serve"

// ErrLost is returned when more requests were lost in the journal's way than
// without it.
var ErrLost = errors.New("datagrams were lost")

// Benchmark implements bench.Benchmark.
type Benchmark struct {
	rounds int
	length time.Duration
}

// Name implements bench.Benchmark.
func (b *Benchmark) Name() string { return "datagrams" }

// Flags implements bench.Benchmark.
func (b *Benchmark) Flags(f *flag.FlagSet) {
	f.IntVar(&b.rounds, "rounds", 7, "how often each server is measured")
	f.DurationVar(&b.length, "length", time.Second, "how long each time")
}

// target is one way to run the server. Their names are parts of metrics.
type target struct {
	name, title string
	runtime     string
	settings    map[string]string
	addr        netip.AddrPort
}

// targets begins with what the others are compared with.
func targets() []*target {
	protected := func(udp string) map[string]string {
		return map[string]string{
			"crsc.io/checkpoint-restore": "true", "crsc.io/checkpoint-interval": "1h", "crsc.io/checkpoint-journal-size": "off",
			"crsc.io/checkpoint-journal-records": "off", "crsc.io/checkpoint-unreplayable": "off", "crsc.io/udp": udp,
		}
	}
	return []*target{
		{name: "direct", title: "runc", runtime: env.RuntimeRunc},
		{name: "pass", title: "udp: pass", runtime: env.RuntimeCRSC, settings: protected("pass")},
		{name: "journal", title: "udp: journal", runtime: env.RuntimeCRSC, settings: protected("journal")},
	}
}

// cells are the loads.
func cells() []load {
	return []load{
		{name: "udp_1", clients: 1, window: 1, size: 64},
		{name: "udp_20", clients: 20, window: 1, size: 64},
		{name: "udp_20_w8", clients: 20, window: 8, size: 64},
		{name: "udp_20_1400", clients: 20, window: 1, size: 1400},
	}
}

// Run implements bench.Benchmark.
func (b *Benchmark) Run(ctx context.Context, rig *bench.Rig, out *bench.Results) error {
	all := targets()
	for _, t := range all {
		if err := t.start(ctx, rig); err != nil {
			return fmt.Errorf("%s: %w", t.title, err)
		}
	}
	t := out.Table("UDP requests and answers", "load", "runc, answers/s", "pass/runc", "journal/runc", "runc, p99 ms", "journal, p99 ms", "lost by runc, pass, journal")
	var errs []error
	for _, l := range cells() {
		rig.Say("%v: %d rounds of %d servers", l, b.rounds, len(all))
		of := map[*target]*series{all[0]: {}, all[1]: {}, all[2]: {}}
		for round := range b.rounds {
			for i := range all {
				one := all[(i+round)%len(all)]
				if err := of[one].add(ctx, rig.Env.Client().Path, one.addr, l, b.length); err != nil {
					return fmt.Errorf("%s, %v: %w", one.title, l, err)
				}
			}
		}
		direct, pass, journal := of[all[0]], of[all[1]], of[all[2]]
		for _, v := range all {
			out.Add(l.name+"_per_s_"+v.name, of[v].rate.Median(), "answers/s", l.String())
			out.Add(l.name+"_p99_ms_"+v.name, of[v].p99.Median(), "ms", l.String())
			out.Add(l.name+"_lost_"+v.name, float64(of[v].lost), "requests", l.String())
		}
		out.Add(l.name+"_pass_vs_direct", pass.rate.Over(direct.rate).Median(), "ratio", l.String())
		out.Add(l.name+"_journal_vs_direct", journal.rate.Over(direct.rate).Median(), "ratio", l.String())
		t.Row(l.String(), direct.rate.Median(), pass.rate.Over(direct.rate).Median(), journal.rate.Over(direct.rate).Median(),
			direct.p99.Median(), journal.p99.Median(), fmt.Sprintf("%d, %d, %d", direct.lost, pass.lost, journal.lost))
		if journal.lost > direct.lost {
			errs = append(errs, fmt.Errorf("%w: %v: %d instead of %d", ErrLost, l, journal.lost, direct.lost))
		}
	}
	return errors.Join(errs...)
}

// start runs this very program as the server.
func (t *target) start(ctx context.Context, rig *bench.Rig) error {
	image, err := ociimage.Import(ctx, rig.Env, "busybox")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pod, err := rig.Env.MakePod(t.name)
	if err != nil {
		return err
	}
	t.addr = netip.AddrPortFrom(pod.IP4, datagrams.Port)
	err = rig.Env.Run(ctx, env.Container{
		ID: t.name, Image: image, Netns: pod.Path, Runtime: t.runtime, Annotations: t.settings,
		Flags: []string{"--mount=type=bind,src=" + self + ",dst=/server,options=rbind:ro"},
		Args:  []string{"/server", ServeCommand},
	})
	if err != nil {
		return err
	}
	if err := rig.AwaitContainer(ctx, t.name, t.settings != nil); err != nil {
		return err
	}
	return bench.Until(ctx, func() error {
		var s series
		if err := s.add(ctx, rig.Env.Client().Path, t.addr, load{clients: 1, window: 1, size: 64}, 10*time.Millisecond); err != nil {
			return err
		}
		if s.lost > 0 {
			return errors.New("it does not answer")
		}
		return nil
	})
}
