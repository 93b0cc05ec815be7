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
const interval = time.Second

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
	rig.Say("%d rounds without images", b.rounds)
	plain, err := b.measure(ctx, rig, "plain", false)
	if err != nil {
		return err
	}
	rig.Say("%d rounds with images", b.rounds)
	with, err := b.measure(ctx, rig, "images", true)
	if err != nil {
		return err
	}
	rig.Say("compare and open the images")
	images, err := inspect(ctx, rig, with)
	if err != nil {
		return err
	}
	b.report(out, plain, with, images)
	return nil
}

// outcome is what a Redis has shown.
type outcome struct {
	id     string
	images []status.Image // as reported; some may be missing
	stall  bench.Sample   // longest wait of a client in each publication, or as long after a checkpoint
	cores  float64        // that the shim used
}

// span of time in which clients are looked at.
type span struct{ from, to time.Time }

// controlSpan is how long after a checkpoint is looked at where nothing is
// published: about as long as a publication takes.
const controlSpan = 300 * time.Millisecond

func (b *Benchmark) measure(ctx context.Context, rig *bench.Rig, id string, publish bool) (_ *outcome, err error) {
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
	var spans []span
	begun, before, err := cpu(server)
	if err != nil {
		return nil, err
	}
	for range b.rounds {
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
			spans = append(spans, span{last.Time.Add(-duration(last.TotalMS)), last.Time})
		} else {
			end := s.Checkpoints.Last.Time.Add(duration(s.Checkpoints.Last.TotalMS))
			spans = append(spans, span{end, end.Add(controlSpan)})
		}
	}
	end, after, err := cpu(server)
	if err != nil {
		return nil, err
	}
	o.cores = (after - before).Seconds() / end.Sub(begun).Seconds()
	if err := errors.Join(bench.Pause(ctx, controlSpan), prober.Stop()); err != nil {
		return nil, err
	}
	for _, x := range spans {
		o.stall = append(o.stall, prober.Longest(x.from, x.to))
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
