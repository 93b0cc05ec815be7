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

	"golang.org/x/sys/unix"

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
	rig.Say("compressing: %d rounds", b.rounds)
	if err := b.compress(ctx, dir, out); err != nil {
		return err
	}
	rig.Say("fdatasync: %d rounds", b.rounds)
	for _, batch := range []int{4 << 10, 16 << 10, 64 << 10} {
		if err := b.sync(ctx, filepath.Join(dir, fmt.Sprint("sync", batch)), batch, out); err != nil {
			return err
		}
	}
	return nil
}

const (
	turnBytes   = 64 << 10 // what a turn of the loop commits under load
	keepBytes   = 64 << 20 // trimmed beyond this
	smallKeep   = 8 << 20
	diskSegment = 4 << 20
)

// append measures appending and committing to the page cache, in the clear and
// encrypted in turn.
func (b *Benchmark) append(ctx context.Context, dir string, out *bench.Results) error {
	t := out.Table("Appending, class page-cache, committed every 64 KiB", "record", "MB/s", "records/s", "allocations per record", "µs of processor time per record", "encrypted", "times that in the clear")
	key, err := journal.NewKey()
	if err != nil {
		return err
	}
	for _, size := range []int{64, 1 << 10, 16 << 10, 64 << 10} {
		x, err := b.appendBoth(ctx, filepath.Join(dir, fmt.Sprint("append", size)), size, key)
		if err != nil {
			return err
		}
		mb := x.rate.Median() * float64(size) / 1e6
		t.Row(fmt.Sprint(size, " bytes"), mb, x.rate.Median(), x.allocs.Median(), x.clear.Median(), x.encrypted.Median(), x.encrypted.Over(x.clear).Median())
		prefix := fmt.Sprintf("append_page_cache_%d", size)
		out.Add(prefix+"_mb_s", mb, "MB/s", "payload, median of the rounds")
		out.Add(prefix+"_allocs", x.allocs.Median(), "allocations", "per record, of the whole process, encrypted or not: the larger")
		out.Add(prefix+"_us", x.clear.Median(), "µs", "processor time per record")
		out.Add(prefix+"_encrypted_us", x.encrypted.Median(), "µs", "with crsc.io/journal-encryption")
		out.Add(prefix+"_encrypted_vs_clear", x.encrypted.Over(x.clear).Median(), "ratio", "of processor time")
	}
	return nil
}

// appended is what appending took, in the clear and encrypted.
type appended struct {
	rate             bench.Sample // records per second, in the clear
	clear, encrypted bench.Sample // µs of processor time per record
	allocs           bench.Sample // per record, of whichever has more
}

// appendBoth drives a journal in the clear and one with a key, in turn.
func (b *Benchmark) appendBoth(ctx context.Context, dir string, size int, key *journal.Key) (x appended, err error) {
	var js [2]*journal.Journal
	defer func() {
		for _, j := range js {
			if j != nil {
				err = errors.Join(err, j.Destroy())
			}
		}
	}()
	for i, key := range []*journal.Key{nil, key} {
		if js[i], err = warm(journal.Options{Dir: fmt.Sprint(dir, "-", i), Key: key}, size, turnBytes, keepBytes); err != nil {
			return x, err
		}
	}
	for range b.rounds {
		var r [2]driven
		for i, j := range js {
			if r[i], err = b.drive(ctx, j, size, turnBytes, keepBytes); err != nil {
				return x, err
			}
		}
		x.rate = append(x.rate, r[0].records/r[0].took.Seconds())
		x.clear = append(x.clear, r[0].microseconds())
		x.encrypted = append(x.encrypted, r[1].microseconds())
		x.allocs = append(x.allocs, max(r[0].allocs/r[0].records, r[1].allocs/r[1].records))
	}
	return x, nil
}

// driven is what one measurement found.
type driven struct {
	records, allocs float64
	took, processor time.Duration
}

// microseconds is the processor time of a record.
func (d driven) microseconds() float64 { return float64(d.processor.Nanoseconds()) / 1e3 / d.records }

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
	start, processor := time.Now(), processorTime()
	for time.Since(start) < b.length && ctx.Err() == nil {
		if err := put(j, data, turn, keep); err != nil {
			return driven{}, err
		}
	}
	took, used := time.Since(start), processorTime()-processor
	return driven{float64(j.Stats().Records - before), float64(mallocs() - mem), took, used}, ctx.Err()
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
