package journalbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/testing/bench"
)

// sync compares class disk with the disk itself, and recycled segment files
// with new ones.
func (b *Benchmark) sync(ctx context.Context, dir string, batch int, out *bench.Results) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	raw, err := newRawFile(filepath.Join(dir, "raw"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	open := func(name string, recycle int) (*journal.Journal, error) {
		return warm(journal.Options{
			Dir: filepath.Join(dir, name), Durability: journal.Disk, SegmentBytes: diskSegment, RecycleSegments: recycle,
		}, 1<<10, batch, smallKeep)
	}
	recycled, err := open("recycled", 4)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, recycled.Destroy()) }()
	fresh, err := open("new", -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fresh.Destroy()) }()
	var rawRate, growRate, syncRate, newRate, behindRate, perSync bench.Sample
	for range b.rounds {
		r, err := b.rawSyncs(ctx, raw, batch)
		if err != nil {
			return err
		}
		g, err := b.growingSyncs(ctx, filepath.Join(dir, "growing"), batch)
		if err != nil {
			return err
		}
		rawRate, growRate = append(rawRate, r), append(growRate, g)
		for _, x := range []struct {
			j    *journal.Journal
			into *bench.Sample
		}{{recycled, &syncRate}, {fresh, &newRate}} {
			d, err := b.drive(ctx, x.j, 1<<10, batch, smallKeep)
			if err != nil {
				return err
			}
			*x.into = append(*x.into, d.records/float64(batch>>10)/d.took.Seconds())
		}
		syncs, records, err := b.behind(ctx, recycled)
		if err != nil {
			return err
		}
		behindRate, perSync = append(behindRate, syncs), append(perSync, records)
	}
	report(out, batch, rawRate, growRate, syncRate, newRate, behindRate, perSync)
	return nil
}

// mainBatch is what the figures without a size are of, in bytes.
const mainBatch = 4 << 10

func report(out *bench.Results, batch int, raw, growing, synced, fresh, behind, perSync bench.Sample) {
	t := out.Table(fmt.Sprintf("Class disk, batches of %d KiB", batch>>10), "", "commits/s", "against the disk's own fdatasync")
	t.Row("pwrite and fdatasync of a file that was written before", raw.Median(), 1.0)
	t.Row("the journal, waiting for each commit", synced.Median(), synced.Over(raw).Median())
	t.Row("the same without reuse of segment files", fresh.Median(), fresh.Over(raw).Median())
	t.Row("a log whose segments grow as they are written", growing.Median(), growing.Over(raw).Median())
	t.Row("the journal, committing behind while appending", behind.Median(), behind.Over(raw).Median())
	if batch != mainBatch {
		out.Add(fmt.Sprintf("disk_recycled_vs_growing_%dk", batch>>10), synced.Over(growing).Median(), "ratio", "as disk_recycled_vs_growing, with larger batches")
		return
	}
	out.Add("fdatasync_per_s", raw.Median(), "1/s", "4 KiB written over what a file held, median of the rounds")
	out.Add("disk_commits_per_s", synced.Median(), "1/s", "journal of class disk, 4 KiB each")
	out.Add("disk_commits_vs_fdatasync", synced.Over(raw).Median(), "ratio", "target: at least 0.5")
	out.Add("disk_recycled_vs_growing", synced.Over(growing).Median(), "ratio", "commits of the journal against those of a log whose segments grow as they are written; target: at least 3")
	out.Add("disk_recycled_vs_new", synced.Over(fresh).Median(), "ratio", "against new segment files that are preallocated")
	out.Add("disk_behind_commits_per_s", behind.Median(), "1/s", "with CommitBehind, while 1 KiB records are appended every 20 µs")
	out.Add("disk_behind_vs_fdatasync", behind.Over(raw).Median(), "ratio", "")
	out.Add("disk_behind_records_per_commit", perSync.Median(), "records", "that shared one fdatasync")
}

// newRawFile is a file whose blocks have been written, as those of a recycled
// segment have.
func newRawFile(path string) (*os.File, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(make([]byte, diskSegment)); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// rawSyncs is how often a second the disk syncs what a commit writes.
func (b *Benchmark) rawSyncs(ctx context.Context, f *os.File, batch int) (float64, error) {
	data, size := make([]byte, batch), int64(batch)
	n, off := 0, int64(0)
	start := time.Now()
	for ; time.Since(start) < b.length && ctx.Err() == nil; n++ {
		if _, err := f.WriteAt(data, off); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		off = (off + size) % (diskSegment - size)
	}
	return float64(n) / time.Since(start).Seconds(), ctx.Err()
}

// growingSyncs is how often a second the disk syncs appends to a file that grows,
// with a new file when a segment's size is reached.
func (b *Benchmark) growingSyncs(ctx context.Context, path string, batch int) (_ float64, err error) {
	data, size := make([]byte, batch), int64(batch)
	var f *os.File
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close(), os.Remove(path))
		}
	}()
	n, off := 0, int64(diskSegment)
	start := time.Now()
	for ; time.Since(start) < b.length && ctx.Err() == nil; n++ {
		if off+size > diskSegment {
			if f != nil {
				if err := errors.Join(f.Close(), os.Remove(path)); err != nil {
					return 0, err
				}
			}
			if f, err = os.Create(path); err != nil {
				return 0, err
			}
			off = 0
		}
		if _, err := f.WriteAt(data, off); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		off += size
	}
	return float64(n) / time.Since(start).Seconds(), ctx.Err()
}

// appendEvery is the distance of records in behind: 50,000 requests a second.
const appendEvery = 20 * time.Microsecond

// behind appends at a steady rate, as a proxy under load does, and commits
// whenever the disk is free. It returns commits per second, and records per
// commit.
func (b *Benchmark) behind(ctx context.Context, j *journal.Journal) (commits, each float64, err error) {
	wake := make(chan struct{}, 1)
	before := j.Stats()
	data := make([]byte, 1<<10)
	start := time.Now()
	for n := int64(0); time.Since(start) < b.length && ctx.Err() == nil; {
		for due := int64(time.Since(start) / appendEvery); n < due; n++ {
			j.AppendInput(1, uint64(n), 0, data)
		}
		under, err := j.CommitBehind(func() { wake <- struct{}{} })
		if err != nil {
			return 0, 0, err
		}
		if under {
			<-wake
		}
		if j.Since(j.Start()) > smallKeep {
			if err := j.TrimBefore(j.Committed()); err != nil {
				return 0, 0, err
			}
		}
	}
	took := time.Since(start)
	if err := j.Commit(); err != nil {
		return 0, 0, err
	}
	after := j.Stats()
	syncs := float64(after.Commits - before.Commits)
	return syncs / took.Seconds(), float64(after.Records-before.Records) / syncs, ctx.Err()
}
