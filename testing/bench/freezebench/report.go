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

// report adds a scenario's figures.
func (o *outcome) report(out *bench.Results) {
	prefix := "redis_" + o.name + "_"
	note := fmt.Sprintf("%d checkpoints; %s", len(o.checkpoints), o.title)
	out.AddQuantiles(prefix+"frozen_ms", o.of(frozen), "ms", note, 0.1, 0.99, 1)
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
	if !o.probe {
		return
	}
	gapNote := "longest wait of a client in a checkpoint, less its median wait; " + note
	out.AddQuantiles(prefix+"gap_ms", o.gaps, "ms", gapNote, 0.99, 1)
	out.AddQuantiles(prefix+"gap_beyond_frozen_ms", o.beyond(), "ms", "gap less frozen, of each checkpoint; "+note, 0.99)
	if len(o.quiet) > 0 {
		out.AddQuantiles(prefix+"gap_between_ms", o.quiet, "ms", "the same between two checkpoints: what the machine does by itself; "+note, 0.99)
	}
	out.Add(prefix+"request_ms_p50", o.wait, "ms", "median wait of that client; "+note)
	if o.connections > 0 {
		out.Add(prefix+"requests_per_s", o.load.PerSec, "requests/s", "checkpoints included; "+note)
	}
}

// beyond is what a client waits longer than the container is frozen.
func (o *outcome) beyond() (s bench.Sample) {
	for i, gap := range o.gaps {
		s = append(s, gap-o.checkpoints[i].frozen)
	}
	return s
}

// reportBeside adds the figures of somebody else, and how ours relate to them.
func (o *outcome) reportBeside(out *bench.Results, r rival, ours *outcome) {
	prefix := "redis_" + o.name + "_"
	note := fmt.Sprintf("%s, %d times; %s", r.title, len(o.checkpoints), o.title)
	out.AddQuantiles(prefix+r.name+"_frozen_ms", o.of(frozen), "ms", note, 0.99)
	out.AddQuantiles(prefix+r.name+"_total_ms", o.of(total), "ms", note, 0.99)
	out.Add(prefix+"frozen_vs_"+r.name, ours.of(frozen).Median()/o.of(frozen).Median(), "ratio", "of the medians; less is shorter")
	if !o.probe {
		return
	}
	out.AddQuantiles(prefix+r.name+"_gap_ms", o.gaps, "ms", note, 0.99)
	out.Add(prefix+"gap_vs_"+r.name, ours.gaps.Median()/o.gaps.Median(), "ratio", "of the medians; less is shorter")
	if o.connections > 0 {
		out.Add(prefix+r.name+"_requests_per_s", o.load.PerSec, "requests/s", note)
	}
}

// row is one scenario in the tables.
type row struct {
	ours   *outcome
	theirs map[string]*outcome
}

func cell(s bench.Sample) string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f / %.1f", s.Median(), s.Quantile(0.99))
}

func printTables(out *bench.Results, rows []row, rivals []rival) {
	t := out.Table("Checkpoints, ms (p50 / p99)", "", "checkpoints", "failed", "held", "frozen", "of that the cut", "gap seen by a client", "gap less frozen", "the same wait between", "total")
	for _, r := range rows {
		o := r.ours
		t.Row(o.title, len(o.checkpoints), o.failed, cell(o.of(held)), cell(o.of(frozen)), cell(o.of(cut)), cell(o.gaps), cell(o.beyond()), cell(o.quiet), cell(o.of(total)))
	}
	for _, v := range rivals {
		t := out.Table("Compared with "+v.title+", ms (p50 / p99)", "", "frozen", "gap", "frozen, ours", "gap, ours", "frozen, ours/theirs")
		for _, r := range rows {
			o := r.theirs[v.name]
			t.Row(o.title, cell(o.of(frozen)), cell(o.gaps), cell(r.ours.of(frozen)), cell(r.ours.gaps), r.ours.of(frozen).Median()/o.of(frozen).Median())
		}
	}
}
