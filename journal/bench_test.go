package journal

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// benchBatch is how many bytes are committed at a time: what an event loop
// collects in one turn under load.
const benchBatch = 64 << 10

// BenchmarkAppendCommit measures appending and committing, trimming as a
// checkpoint does. MB/s counts payload.
func BenchmarkAppendCommit(b *testing.B) {
	for _, v := range variants {
		for _, size := range []int{64, 1 << 10, 16 << 10} {
			b.Run(fmt.Sprintf("%v/%d", v, size), func(b *testing.B) {
				benchAppend(b, Options{Durability: v.class, Key: v.key}, size, benchBatch)
			})
		}
	}
}

// BenchmarkRecycling compares new segment files with recycled ones, synced.
func BenchmarkRecycling(b *testing.B) {
	for name, recycle := range map[string]int{"new": -1, "recycled": 8} {
		b.Run(name, func(b *testing.B) {
			benchAppend(b, Options{Durability: Disk, RecycleSegments: recycle, SegmentBytes: 4 << 20}, 1<<10, 4<<10)
		})
	}
}

// BenchmarkAppend measures the encoding of one record alone.
func BenchmarkAppend(b *testing.B) {
	j := mustOpen(b, Options{Dir: filepath.Join(b.TempDir(), "j"), Durability: Memory})
	defer func() { _ = j.Destroy() }()
	data := make([]byte, 64)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		j.AppendInput(uint32(i&63), uint64(i), uint64(i), data)
		if i%1000 == 999 {
			j.batch.buf, j.pending = j.batch.buf[:0], 0
		}
	}
}

func benchAppend(b *testing.B, o Options, size, batch int) {
	o.Dir = filepath.Join(b.TempDir(), "j")
	j := mustOpen(b, o)
	data := make([]byte, size)
	// The first life of the files is not measured.
	for j.Stats().Segments < 6 {
		j.AppendInput(1, 0, 0, data)
		if j.Pending() >= batch<<4 {
			require.NoError(b, j.Commit())
		}
	}
	require.NoError(b, j.Commit())
	b.SetBytes(int64(size))
	b.ReportAllocs()
	appended := 0
	for i := 0; b.Loop(); i++ {
		j.AppendInput(uint32(i&63), uint64(i), uint64(i), data)
		if appended += size; appended < batch {
			continue
		}
		appended = 0
		if err := j.Commit(); err != nil {
			b.Fatal(err)
		}
		if j.Since(j.Start()) > 128<<20 || o.SegmentBytes != 0 && j.Since(j.Start()) > 4*o.SegmentBytes {
			if err := j.TrimBefore(j.Committed()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.StopTimer()
	require.NoError(b, j.Destroy())
}

// BenchmarkReader measures reading 64 MiB of 1 KiB records.
func BenchmarkReader(b *testing.B) {
	const size, n = 1 << 10, 64 << 10
	j := mustOpen(b, Options{Dir: filepath.Join(b.TempDir(), "j")})
	data := make([]byte, size)
	for i := range n {
		j.AppendInput(1, uint64(i), 0, data)
		if i%64 == 63 {
			require.NoError(b, j.Commit())
		}
	}
	b.SetBytes(size * n)
	for b.Loop() {
		r, err := j.NewReader(j.Start())
		require.NoError(b, err)
		var rec Record
		got := 0
		for r.Next(&rec) == nil {
			got++
		}
		require.Equal(b, n, got)
	}
	require.NoError(b, j.Destroy())
}
