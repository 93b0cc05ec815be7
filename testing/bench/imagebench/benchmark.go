package imagebench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/bench"
)

// interval of the checkpoints.
const interval = 2 * time.Second

// Benchmark implements bench.Benchmark.
type Benchmark struct {
	rounds          int
	heapMB, changed int
}

// Name implements bench.Benchmark.
func (b *Benchmark) Name() string { return "image" }

// Flags implements bench.Benchmark.
func (b *Benchmark) Flags(f *flag.FlagSet) {
	f.IntVar(&b.rounds, "rounds", 24, "images to wait for")
	f.IntVar(&b.heapMB, "heap", 64, "data in the Redis, in MB")
	f.IntVar(&b.changed, "changed", 4, "data that is overwritten in each round, in MB")
}

// Run implements bench.Benchmark.
func (b *Benchmark) Run(ctx context.Context, rig *bench.Rig, out *bench.Results) error {
	// What is compared comes before and after what it is compared with, so that a
	// machine that becomes slower or faster is no difference.
	var plain outcome
	var with *outcome
	for _, part := range []struct {
		id      string
		rounds  int
		publish bool
	}{{"before", b.rounds / 2, false}, {"images", b.rounds, true}, {"after", b.rounds - b.rounds/2, false}} {
		rig.Say("%d rounds, images %v", part.rounds, part.publish)
		o, err := b.measure(ctx, rig, part.id, part.rounds, part.publish)
		if err != nil {
			return err
		}
		if part.publish {
			with = o
			continue
		}
		plain.ends, plain.probers = append(plain.ends, o.ends...), append(plain.probers, o.probers...)
		plain.cpu += o.cpu
		plain.time += o.time
	}
	rig.Say("compare and open the images")
	images, err := inspect(ctx, rig, with)
	if err != nil {
		return err
	}
	b.report(out, &plain, with, images)
	return nil
}

// outcome is what a Redis has shown.
type outcome struct {
	id     string
	images []status.Image // as reported; some may be missing
	// ends of checkpoints, or beginnings of publications, and who was a client
	// then.
	ends      []time.Time
	probers   []*bench.Prober
	cpu, time time.Duration // that was used, and that passed
}

// stall is the longest wait of a client in a span of time that begins at the
// i-th end.
func (o *outcome) stall(i int, length time.Duration) float64 {
	return o.probers[i].Longest(o.ends[i], o.ends[i].Add(length))
}

// longestSpan that is looked at: a longer one would see the next checkpoint.
const longestSpan = interval * 8 / 10

func (b *Benchmark) measure(ctx context.Context, rig *bench.Rig, id string, rounds int, publish bool) (_ *outcome, err error) {
	settings := map[string]string{"checkpoint-interval": interval.String(), "checkpoint-journal-size": "off",
		"checkpoint-journal-records": "off", "publish": fmt.Sprint(publish), "publish-keep": "1000"}
	server, err := rig.StartRedis(ctx, bench.ServerOptions{ID: id, Pod: id, Settings: settings})
	if err != nil {
		return nil, err
	}
	data, err := newData(rig, server, b.heapMB)
	if err != nil {
		return nil, err
	}
	defer data.close()
	prober, err := rig.StartProber(server.Addr)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, prober.Stop()) }()
	o := &outcome{id: id}
	begun, before, err := cpu(rig, server)
	if err != nil {
		return nil, err
	}
	for range rounds {
		if err := data.overwrite(b.changed); err != nil {
			return nil, err
		}
		s, err := awaitRound(ctx, server, publish)
		if err != nil {
			return nil, err
		}
		if publish {
			last := *s.Images.Last
			o.images = append(o.images, last)
			o.ends = append(o.ends, last.Time.Add(-duration(last.TotalMS)))
		} else {
			o.ends = append(o.ends, s.Checkpoints.Last.Time.Add(duration(s.Checkpoints.Last.TotalMS)))
		}
		o.probers = append(o.probers, prober)
	}
	end, after, err := cpu(rig, server)
	if err != nil {
		return nil, err
	}
	o.cpu, o.time = after-before, end.Sub(begun)
	if err := errors.Join(bench.Pause(ctx, longestSpan), prober.Stop()); err != nil {
		return nil, err
	}
	return o, server.Remove(ctx)
}

// awaitRound waits for an image of a checkpoint that begins from now on, or for
// such a checkpoint.
func awaitRound(ctx context.Context, server *bench.Server, publish bool) (s *status.Status, err error) {
	now := time.Now()
	err = bench.Until(ctx, func() error {
		if s, err = server.Status(); err != nil {
			return err
		}
		if s.Checkpoints.Last == nil || !s.Checkpoints.Last.Time.After(now) {
			return errors.New("no checkpoint")
		}
		if publish && (s.Images.Last == nil || s.Images.Last.Time.Before(s.Checkpoints.Last.Time)) {
			return fmt.Errorf("no image: %s", s.Images.LastError)
		}
		return nil
	})
	return s, err
}

func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
