package criu_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// Run with -benchtime=100x, and with CRSC_BENCH_IMAGES set to a directory on a
// tmpfs to see what the file system of the images costs.

func BenchmarkDump(b *testing.B) {
	for _, conns := range []int{0, 50} {
		b.Run(fmt.Sprintf("connections=%d", conns), func(b *testing.B) {
			box := startBench(b)
			box.redis()
			for range conns {
				box.redis()
			}
			stalls := durations{}
			parts := map[string]durations{}
			for b.Loop() {
				s := box.dump(func(o *criu.DumpOptions) { o.Urgent = true })
				stalls = append(stalls, s.Stall())
				for name, d := range map[string]time.Duration{"freezing": s.Freezing, "memory": s.Memory, "settle": s.PostDump, "start": s.Start, "total": s.Total} {
					parts[name] = append(parts[name], d)
				}
			}
			stalls.report(b, "frozen")
			for name, d := range parts {
				b.ReportMetric(d.quantile(0.5), name+"-ms-p50")
			}
		})
	}
}

func BenchmarkRestore(b *testing.B) {
	box := startBench(b)
	box.redis().Reset()
	box.dump()
	totals := durations{}
	parts := map[string]durations{}
	for b.Loop() {
		a, err := criu.Arm(b.Context(), box.restoreOptions())
		if err != nil {
			box.fatal(err)
		}
		box.Crash()
		pid, s, err := a.Restore(b.Context())
		if err != nil {
			box.fatal(err)
		}
		box.Pid = pid
		totals = append(totals, s.Total)
		for name, d := range map[string]time.Duration{"arm": s.Arm, "join": s.Join, "prepare": s.Prepare, "restore": s.Restore, "check": s.Check, "resume": s.Resume, "end": s.End} {
			parts[name] = append(parts[name], d)
		}
	}
	totals.report(b, "total")
	for name, d := range parts {
		b.ReportMetric(d.quantile(0.5), name+"-ms-p50")
	}
}

func startBench(b *testing.B) *box {
	b.Helper()
	box := start(b, criutest.NetNS(b), criutest.RedisArgs)
	if base := os.Getenv("CRSC_BENCH_IMAGES"); base != "" {
		dir, err := os.MkdirTemp(base, "bench")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) })
		box.dir = dir
	}
	return box
}

type durations []time.Duration

// quantile is in milliseconds.
func (d durations) quantile(q float64) float64 {
	slices.Sort(d)
	return d[int(q*float64(len(d)-1))].Seconds() * 1000
}

func (d durations) report(b *testing.B, name string) {
	b.Helper()
	// What it takes if nothing else runs is near the first.
	b.ReportMetric(d.quantile(0.1), name+"-ms-p10")
	b.ReportMetric(d.quantile(0.5), name+"-ms-p50")
	b.ReportMetric(d.quantile(0.99), name+"-ms-p99")
}
