package journalbench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/testing/bench"
)

// Benchmark implements bench.Benchmark.
type Benchmark struct {
	rounds int
	length time.Duration
}

// Name implements bench.Benchmark.
func (b *Benchmark) Name() string { return "journal" }

// Flags implements bench.Benchmark.
func (b *Benchmark) Flags(f *flag.FlagSet) {
	f.IntVar(&b.rounds, "rounds", 7, "how often each thing is measured")
	f.DurationVar(&b.length, "length", 300*time.Millisecond, "length of one measurement")
}

// Run implements bench.Benchmark.
func (b *Benchmark) Run(ctx context.Context, rig *bench.Rig, out *bench.Results) error {
	dir := filepath.Join(rig.Env.Dir, "journalbench")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	rig.Say("appending: %d rounds", b.rounds)
	if err := b.append(ctx, dir, out); err != nil {
		return err
	}
	rig.Say("fdatasync: %d rounds", b.rounds)
	return b.sync(ctx, dir, out)
}

const (
	turnBytes   = 64 << 10 // what a turn of the loop commits under load
	keepBytes   = 64 << 20 // trimmed beyond this
	smallTurn   = 4 << 10  // what a turn commits to a disk
	smallKeep   = 8 << 20
	diskSegment = 4 << 20
)

// append measures appending and committing to the page cache.
func (b *Benchmark) append(ctx context.Context, dir string, out *bench.Results) error {
	t := out.Table("Appending, class page-cache, committed every 64 KiB", "record", "MB/s", "records/s", "allocations per record")
	for _, size := range []int{64, 1 << 10, 16 << 10, 64 << 10} {
		rates, allocs := bench.Sample{}, bench.Sample{}
		j, err := warm(journal.Options{Dir: filepath.Join(dir, fmt.Sprint("append", size))}, size, turnBytes, keepBytes)
		if err != nil {
			return err
		}
		for range b.rounds {
			r, err := b.drive(ctx, j, size, turnBytes, keepBytes)
			if err != nil {
				return errors.Join(err, j.Destroy())
			}
			rates, allocs = append(rates, r.records/r.took.Seconds()), append(allocs, r.allocs/r.records)
		}
		if err := j.Destroy(); err != nil {
			return err
		}
		bytes := rates.Median() * float64(size) / 1e6
		t.Row(fmt.Sprint(size, " bytes"), bytes, rates.Median(), allocs.Median())
		prefix := fmt.Sprintf("append_page_cache_%d", size)
		out.Add(prefix+"_mb_s", bytes, "MB/s", "payload, median of the rounds")
		out.Add(prefix+"_allocs", allocs.Median(), "allocations", "per record, of the whole process")
	}
	return nil
}

// driven is what one measurement found.
type driven struct {
	records, allocs float64
	took            time.Duration
}

// warm opens a journal and lets it come to reuse its segment files.
func warm(o journal.Options, size, turn int, keep int64) (*journal.Journal, error) {
	j, err := journal.Open(o)
	if err != nil {
		return nil, err
	}
	for data := make([]byte, size); int64(j.End()) < 2*keep; {
		if err := put(j, data, turn, keep); err != nil {
			return nil, errors.Join(err, j.Destroy())
		}
	}
	return j, nil
}

// put appends a turn's records, commits them, and trims when enough is there.
func put(j *journal.Journal, data []byte, turn int, keep int64) error {
	for n := 0; n < turn; n += len(data) {
		j.AppendInput(1, uint64(n), 0, data)
	}
	if err := j.Commit(); err != nil {
		return err
	}
	if j.Since(j.Start()) > keep {
		return j.TrimBefore(j.Committed())
	}
	return nil
}

func (b *Benchmark) drive(ctx context.Context, j *journal.Journal, size, turn int, keep int64) (driven, error) {
	data := make([]byte, size)
	before, mem := j.Stats().Records, mallocs()
	start := time.Now()
	for time.Since(start) < b.length && ctx.Err() == nil {
		if err := put(j, data, turn, keep); err != nil {
			return driven{}, err
		}
	}
	took := time.Since(start)
	return driven{float64(j.Stats().Records - before), float64(mallocs() - mem), took}, ctx.Err()
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
