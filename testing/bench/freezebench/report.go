package freezebench

import (
	"fmt"

	"github.com/crsc-io/crsc/testing/bench"
)

// of takes one figure of each checkpoint.
func (o *outcome) of(figure func(checkpoint) float64) (s bench.Sample) {
	for _, c := range o.checkpoints {
		s = append(s, figure(c))
	}
	return s
}

func frozen(c checkpoint) float64 { return c.frozen }
func cut(c checkpoint) float64    { return c.cut }
func held(c checkpoint) float64   { return c.held }
func total(c checkpoint) float64  { return c.total }

// report adds a scenario's figures, and how they relate to runc's.
func (o *outcome) report(out *bench.Results, runc *outcome) {
	prefix := "redis_" + o.name + "_"
	note := fmt.Sprintf("%d checkpoints; %s", len(o.checkpoints), o.title)
	out.AddQuantiles(prefix+"frozen_ms", o.of(frozen), "ms", note, 0.99, 1)
	out.AddQuantiles(prefix+"cut_ms", o.of(cut), "ms", "part of frozen: connections and files, after CRIU's work; "+note, 0.99)
	out.Add(prefix+"checkpoints_failed", float64(o.failed), "checkpoints", "beside those that are listed; the last said: "+o.lastError)
	out.AddQuantiles(prefix+"held_ms", o.of(held), "ms", "input held back before the freeze; "+note, 0.99)
	out.AddQuantiles(prefix+"total_ms", o.of(total), "ms", "one checkpoint, most of it in the background; "+note, 0.99)
	out.Add(prefix+"quiet_part", o.of(func(c checkpoint) float64 {
		if c.quiet {
			return 1
		}
		return 0
	}).Sum()/float64(len(o.checkpoints)), "part", "checkpoints with nothing in flight at the cut; "+note)
	runcNote := fmt.Sprintf("runc checkpoint --leave-running, %d times; %s", len(runc.checkpoints), o.title)
	out.AddQuantiles(prefix+"runc_frozen_ms", runc.of(frozen), "ms", runcNote, 0.99)
	out.AddQuantiles(prefix+"runc_total_ms", runc.of(total), "ms", runcNote, 0.99)
	out.Add(prefix+"frozen_vs_runc", o.of(frozen).Median()/runc.of(frozen).Median(), "ratio", "of the medians; less is shorter")
	if !o.probe {
		return
	}
	gapNote := "longest wait of a client in a checkpoint, less its median wait; " + note
	out.AddQuantiles(prefix+"gap_ms", o.gaps, "ms", gapNote, 0.99, 1)
	if len(o.quiet) > 0 {
		out.AddQuantiles(prefix+"gap_between_ms", o.quiet, "ms", "the same between two checkpoints: what the machine does by itself; "+note, 0.99)
	}
	out.Add(prefix+"request_ms_p50", o.wait, "ms", "median wait of that client; "+note)
	out.AddQuantiles(prefix+"runc_gap_ms", runc.gaps, "ms", runcNote, 0.99)
	out.Add(prefix+"gap_vs_runc", o.gaps.Median()/runc.gaps.Median(), "ratio", "of the medians; less is shorter")
	if o.connections > 0 {
		out.Add(prefix+"requests_per_s", o.load.PerSec, "requests/s", "checkpoints included; "+note)
		out.Add(prefix+"runc_requests_per_s", runc.load.PerSec, "requests/s", runcNote)
	}
}

func printTable(out *bench.Results, ours, runcs []*outcome) {
	cell := func(s bench.Sample) string {
		if len(s) == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f / %.1f", s.Median(), s.Quantile(0.99))
	}
	t := out.Table("Checkpoints, ms (p50 / p99)", "", "checkpoints", "failed", "held", "frozen", "of that the cut", "gap seen by a client", "the same between", "total",
		"runc: frozen", "runc: gap", "frozen, ours/runc")
	for i, o := range ours {
		r := runcs[i]
		t.Row(o.title, len(o.checkpoints), o.failed, cell(o.of(held)), cell(o.of(frozen)), cell(o.of(cut)), cell(o.gaps), cell(o.quiet), cell(o.of(total)),
			cell(r.of(frozen)), cell(r.gaps), o.of(frozen).Median()/r.of(frozen).Median())
	}
}
