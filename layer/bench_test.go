package layer

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// benchmarkCapture times captures on top of the last one; change runs before
// each. The time is that of Draft.Capture, for which tasks are frozen; whole-ns
// is that of Prepare as well.
func benchmarkCapture(b *testing.B, prepare func(upper string), change func(upper string, i int)) {
	o := newOverlay(b)
	prepare(o.upper)
	settle(b)
	prev := o.snapshot(-1)
	mustCapture(b, o.upper, prev, "")
	b.ReportAllocs()
	i := 0
	var total time.Duration
	for b.Loop() {
		b.StopTimer()
		change(o.upper, i)
		dst := o.snapshot(i)
		whole := time.Now()
		draft, err := Prepare(dst, prev, Limits{})
		require.NoError(b, err)
		b.StartTimer()
		stats, err := draft.Capture(b.Context(), o.upper)
		b.StopTimer()
		total += time.Since(whole)
		require.NoError(b, err)
		require.NoError(b, stats.PrevError)
		require.NoError(b, Sync(dst))
		require.NoError(b, os.RemoveAll(prev))
		prev = dst
		i++
		b.StartTimer()
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(i), "whole-ns/op")
}

func nothing(string)        {}
func unchanged(string, int) {}
func tree(b *testing.B, n int) func(string) {
	return func(upper string) {
		for i := range n {
			write(b, fmt.Sprintf("%s/dir%d/file%d", upper, i%100, i), strings.Repeat(fmt.Sprint(i), 200))
		}
	}
}

func BenchmarkCaptureEmpty(b *testing.B) { benchmarkCapture(b, nothing, unchanged) }

func BenchmarkCaptureTenFilesChanged(b *testing.B) {
	benchmarkCapture(b, nothing, func(upper string, i int) {
		for f := range 10 {
			write(b, fmt.Sprintf("%s/file%d", upper, f), fmt.Sprint("contents ", i))
		}
	})
}

func BenchmarkCapture10000Unchanged(b *testing.B) { benchmarkCapture(b, tree(b, 10_000), unchanged) }

func BenchmarkCaptureOneOf10000Changed(b *testing.B) {
	benchmarkCapture(b, tree(b, 10_000), func(upper string, i int) {
		write(b, upper+"/dir7/file7", fmt.Sprint("contents ", i))
	})
}

func BenchmarkCapture10000Changed(b *testing.B) {
	benchmarkCapture(b, nothing, func(upper string, i int) { tree(b, 10_000)(upper) })
}

func BenchmarkCapture256MiBChanged(b *testing.B) {
	data := strings.Repeat("0123456789abcdef", 16<<20)
	b.SetBytes(int64(len(data)))
	benchmarkCapture(b, nothing, func(upper string, i int) { write(b, upper+"/big", data[i%16:]+data[:i%16]) })
}

func benchmarkRollback(b *testing.B, prepare func(upper string), change func(upper string, i int)) {
	o := newOverlay(b)
	prepare(o.upper)
	mustCapture(b, o.upper, o.snapshot(1), "")
	i := 0
	for b.Loop() {
		b.StopTimer()
		change(o.upper, i)
		i++
		b.StartTimer()
		rollBack(b, o.snapshot(1), o.upper)
	}
}

func BenchmarkRollback10000Unchanged(b *testing.B) { benchmarkRollback(b, tree(b, 10_000), unchanged) }

func BenchmarkRollbackOneOf10000(b *testing.B) {
	benchmarkRollback(b, tree(b, 10_000), func(upper string, i int) {
		write(b, upper+"/dir7/file7", fmt.Sprint("contents ", i))
	})
}

func BenchmarkRollbackAppended256MiB(b *testing.B) {
	data := strings.Repeat("0123456789abcdef", 16<<20)
	benchmarkRollback(b, func(upper string) { write(b, upper+"/big", data) }, func(upper string, i int) {
		f, err := os.OpenFile(upper+"/big", os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(b, err)
		_, err = f.WriteString("more")
		require.NoError(b, err)
		require.NoError(b, f.Close())
	})
}

func BenchmarkSame10000(b *testing.B) {
	o := newOverlay(b)
	tree(b, 10_000)(o.upper)
	settle(b)
	mustCapture(b, o.upper, o.snapshot(1), "")
	for b.Loop() {
		requireIsSame(b, true, o.snapshot(1), o.upper)
	}
}
