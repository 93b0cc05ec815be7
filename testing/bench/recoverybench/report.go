package recoverybench

import (
	"fmt"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/bench"
)

// phase is a part of a recovery.
type phase struct {
	name, what string
	of         func(status.Recovery) float64 // milliseconds
}

func phases() []phase {
	return []phase{
		{"detect", "from the first closed socket until the init is reaped", func(r status.Recovery) float64 { return r.DetectMS }},
		{"drain", "read what the dead application left in the sockets", func(r status.Recovery) float64 { return r.DrainMS }},
		{"plan", "read the journal's tail", func(r status.Recovery) float64 { return r.PlanMS }},
		{"rollback", "wait for the last process, put files back", func(r status.Recovery) float64 { return r.RollbackMS }},
		{"legs", "make the sockets towards the application again", func(r status.Recovery) float64 { return r.LegsMS }},
		{"criu", "restore the processes", func(r status.Recovery) float64 { return r.CRIUMS }},
		{"replay", "feed the tail", func(r status.Recovery) float64 { return r.ReplayMS }},
		{"total", "from the reaped init until live again", func(r status.Recovery) float64 { return r.TotalMS }},
	}
}

func (o *outcome) report(out *bench.Results) {
	note := fmt.Sprintf("%d crashes; %s", len(o.crashes), o.note)
	stallNote := "longest wait of a client in each crash; " + note
	if o.name == "light" {
		stallNote += fmt.Sprintf("; target: p50 <= %d", targetStallMS)
	}
	out.AddQuantiles(o.name+"_stall_ms", o.stalls, "ms", stallNote, 1)
	for _, p := range phases() {
		out.AddQuantiles(o.name+"_"+p.name+"_ms", o.of(p.of), "ms", p.what+"; "+note, 1)
	}
	records := o.of(func(r status.Recovery) float64 { return float64(r.Records) })
	replay := o.of(func(r status.Recovery) float64 { return r.ReplayMS })
	out.Add(o.name+"_replay_records_per_s", records.Sum()/replay.Sum()*1000, "records/s", "input records; "+note)
	if last := o.state.Checkpoints.Last; last != nil {
		out.Add(o.name+"_frozen_ms", last.FrozenMS, "ms", "frozen for the last checkpoint; "+note)
	}
	out.AddQuantiles(o.name+"_replay_records", records, "records", "length of the tail; "+note, 1)
	out.Add(o.name+"_checkpoints_per_s", float64(o.state.Checkpoints.Count)/o.seconds, "1/s", note)
	out.Add(o.name+"_checkpoints_failed", float64(o.state.Checkpoints.Failed), "checkpoints", "includes those that a kill interrupted; "+note)
	out.Add(o.name+"_attempts_max", o.of(func(r status.Recovery) float64 { return float64(r.Attempts) }).Max(), "attempts", "1: the first way worked; "+note)
	out.Add(o.name+"_requests_per_s", o.result.PerSec, "requests/s", "crashes included; "+note)
	out.Add(o.name+"_request_ms_p50", o.result.LatencyMS.P50, "ms", "crashes included; "+note)
	out.Add(o.name+"_client_errors", float64(o.result.ClientErrors), "errors", note)
	out.Add(o.name+"_lost", float64(o.result.Lost), "increments", note)
	out.Add(o.name+"_doubled", float64(o.result.Doubled), "increments", note)
}

func printTables(out *bench.Results, done []*outcome) {
	header, rows := []any{"ms, p50 / max"}, [][]any{}
	cell := func(s bench.Sample) string { return fmt.Sprintf("%.1f / %.1f", s.Median(), s.Max()) }
	rows = append(rows, []any{"longest stall of a client"})
	for _, p := range phases() {
		rows = append(rows, []any{p.name + ": " + p.what})
	}
	for _, o := range done {
		header = append(header, o.note)
		rows[0] = append(rows[0], cell(o.stalls))
		for i, p := range phases() {
			rows[i+1] = append(rows[i+1], cell(o.of(p.of)))
		}
	}
	t := out.Table("Crashes by SIGKILL, and what clients notice", header...)
	for _, r := range rows {
		t.Row(r...)
	}
	t = out.Table("What it was measured with", append([]any{"the load"}, header[1:]...)...)
	for _, r := range []struct{ name, metric string }{
		{"requests/s", "requests_per_s"}, {"checkpoints/s", "checkpoints_per_s"}, {"checkpoints that failed", "checkpoints_failed"}, {"ms frozen for the last checkpoint", "frozen_ms"},
		{"records to replay, p50", "replay_records_p50"}, {"records to replay, max", "replay_records_max"},
		{"replayed records/s", "replay_records_per_s"}, {"attempts, max", "attempts_max"},
		{"client errors", "client_errors"}, {"increments lost", "lost"}, {"increments applied twice", "doubled"},
	} {
		row := []any{r.name}
		for _, o := range done {
			row = append(row, out.Get(o.name+"_"+r.metric))
		}
		t.Row(row...)
	}
	for _, o := range done {
		if o.name != "light" {
			continue
		}
		verdict := "met"
		if o.stalls.Median() > targetStallMS {
			verdict = "MISSED"
		}
		t = out.Table("Target", "metric", "target", "measured", "")
		t.Row("light_stall_ms_p50", fmt.Sprintf("<= %d", targetStallMS), o.stalls.Median(), verdict)
	}
}
