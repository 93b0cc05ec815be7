package imagebench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
)

// Benchmark implements bench.Benchmark.
type Benchmark struct {
	rounds          int
	heapMB, changed int
}

// Name implements bench.Benchmark.
func (b *Benchmark) Name() string { return "image" }

// Flags implements bench.Benchmark.
func (b *Benchmark) Flags(f *flag.FlagSet) {
	f.IntVar(&b.rounds, "rounds", 30, "checkpoints with an image, and as many without")
	f.IntVar(&b.heapMB, "heap", 64, "data in the Redis, in MB")
	f.IntVar(&b.changed, "changed", 4, "data that is overwritten in each round, in MB")
}

// Run implements bench.Benchmark.
func (b *Benchmark) Run(ctx context.Context, rig *bench.Rig, out *bench.Results) error {
	with, err := b.start(ctx, rig, "images", true)
	if err != nil {
		return err
	}
	defer with.data.close()
	without, err := b.start(ctx, rig, "without", false)
	if err != nil {
		return err
	}
	defer without.data.close()
	rig.Say("%d rounds", b.rounds)
	if err := b.rotate(ctx, rig, with, without); err != nil {
		return err
	}
	rig.Say("compare and open the images")
	images, err := inspect(ctx, rig, with.id)
	if err != nil {
		return err
	}
	b.report(out, with, without, images)
	return errors.Join(with.server.Remove(ctx), without.server.Remove(ctx))
}

// rotate lets the two make their checkpoints in turn, in random order: what is
// compared is seconds apart, and nobody else is at work meanwhile.
func (b *Benchmark) rotate(ctx context.Context, rig *bench.Rig, with, without *side) error {
	// The first image is a full one, and everything is cold.
	for _, s := range []*side{with, without} {
		if err := s.round(ctx, rig, b.changed); err != nil {
			return err
		}
		s.made = nil
	}
	if err := errors.Join(with.clock(rig, -1), without.clock(rig, -1)); err != nil {
		return err
	}
	for range b.rounds {
		order := []*side{with, without}
		rand.Shuffle(2, func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, s := range order {
			if err := s.round(ctx, rig, b.changed); err != nil {
				return fmt.Errorf("%s: %w", s.id, err)
			}
		}
	}
	return errors.Join(with.clock(rig, 1), without.clock(rig, 1))
}

func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
