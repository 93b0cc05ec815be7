package demo

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/crsc-io/crsc/testing/load"
)

// Figures are the fields of out/demo.json.
type Figures struct {
	Kills            int              `json:"kills"`
	ClientErrors     int64            `json:"client_errors"`
	Acknowledged     int64            `json:"acknowledged"`
	Stored           int64            `json:"stored"`
	Lost             int64            `json:"lost"`
	Doubled          int64            `json:"doubled"`
	DifferingReplies int64            `json:"differing_replies"`
	StallMS          Stall            `json:"stall_ms"`
	Recoveries       []RecoveryFigure `json:"recoveries"`
}

// Stall summarises the longest wait of any client in each crash; without
// crashes both are the longest wait of the run.
type Stall struct {
	P50 float64 `json:"p50"`
	Max float64 `json:"max"`
}

// RecoveryFigure says where the time of one recovery went.
type RecoveryFigure struct {
	DetectMS  float64 `json:"detect_ms"`
	RestoreMS float64 `json:"restore_ms"`
	ReplayMS  float64 `json:"replay_ms"`
	TotalMS   float64 `json:"total_ms"`
}

// Report is everything that a run found out.
type Report struct {
	Figures
	Load        load.Result `json:"load"`
	Checkpoints int         `json:"checkpoints"`
	Failed      int         `json:"checkpoints_failed"`
	Growth      []Growth    `json:"growth,omitempty"`
	// Faults are empty if everything is as it should be.
	Faults []string `json:"faults"`

	start  time.Time
	crash  []crash
	stalls []time.Duration
}

func (r *run) report(result load.Result) *Report {
	out := &Report{Load: result, Growth: r.watch.growth(), start: r.start, crash: r.crash, Faults: []string{}}
	f := &out.Figures
	f.Kills, f.Recoveries = len(r.crash), []RecoveryFigure{}
	f.ClientErrors, f.Acknowledged, f.Stored = result.ClientErrors, result.Acknowledged, result.Stored
	f.Lost, f.Doubled, f.DifferingReplies = result.Lost, result.Doubled, result.WrongReplies
	for i, c := range r.crash {
		// A second after it is live again the backlog has been worked off.
		end := c.live.Add(time.Second)
		if i+1 < len(r.crash) && r.crash[i+1].killed.Before(end) {
			end = r.crash[i+1].killed
		}
		out.stalls = append(out.stalls, r.load.LongestBetween(c.killed, end))
		if v := c.recovered; v != nil {
			f.DifferingReplies += v.Differing
			f.Recoveries = append(f.Recoveries, RecoveryFigure{v.DetectMS, v.RestoreMS, v.ReplayMS, v.TotalMS})
		}
	}
	f.StallMS = Stall{result.LatencyMS.Max, result.LatencyMS.Max}
	if n := len(out.stalls); n > 0 {
		sorted := slices.Sorted(slices.Values(out.stalls))
		f.StallMS = Stall{millis((sorted[(n-1)/2] + sorted[n/2]) / 2), millis(sorted[n-1])}
	}
	if s, err := readStatus(r.env.StatusFile(containerID)); err == nil {
		out.Checkpoints, out.Failed = s.Checkpoints.Count, s.Checkpoints.Failed
	}
	out.judge(r.o.Kills)
	return out
}

// judge lists what is not as it should be.
func (r *Report) judge(wantKills int) {
	fault := func(bad bool, format string, args ...any) {
		if bad {
			r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
		}
	}
	fault(r.ClientErrors > 0, "clients saw %d errors, %d of them resets: %v", r.ClientErrors, r.Load.Resets, r.Load.Errors)
	fault(r.DifferingReplies > 0, "%d replies differed: %v", r.DifferingReplies, r.Load.Wrong)
	fault(r.Lost > 0, "%d acknowledged increments were lost", r.Lost)
	fault(r.Doubled > 0, "%d increments were applied twice", r.Doubled)
	fault(r.Stored >= 0 && r.Stored != r.Acknowledged, "%d increments were acknowledged and %d are stored", r.Acknowledged, r.Stored)
	fault(r.Acknowledged == 0, "no request was answered")
	fault(r.Kills < wantKills, "only %d of %d kills were done", r.Kills, wantKills)
	fault(len(r.Recoveries) < r.Kills, "%d of %d crashes were not recovered", r.Kills-len(r.Recoveries), r.Kills)
	for _, g := range r.Growth {
		fault(g.TooMuch, "%s grew from %d to %d", g.What, g.Early, g.Late)
	}
}

// WriteTable prints the report for a person.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	if len(r.crash) > 0 {
		fmt.Fprintln(t, "crash\tafter\tdetected\trestored\treplayed\tlive again\tlongest stall\t")
	}
	for i, c := range r.crash {
		fmt.Fprintf(t, "%d\t%.1f s\t", i+1, c.killed.Sub(r.start).Seconds())
		if v := c.recovered; v != nil {
			fmt.Fprintf(t, "%.1f ms\t%.1f ms\t%.1f ms\t%.1f ms\t%.1f ms\t\n", v.DetectMS, v.RestoreMS, v.ReplayMS, v.TotalMS, millis(r.stalls[i]))
		} else {
			fmt.Fprintf(t, "-\t-\t-\tnever\t%.1f ms\t\n", millis(r.stalls[i]))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%d requests at %.0f/s, p50 %.2f ms, p99 %.2f ms; %d checkpoints, %d failed\n",
		r.Load.Requests, r.Load.PerSec, r.Load.LatencyMS.P50, r.Load.LatencyMS.P99, r.Checkpoints, r.Failed)
	fmt.Fprintf(w, "longest stall per crash: median %.1f ms, worst %.1f ms\n", r.StallMS.P50, r.StallMS.Max)
	fmt.Fprintf(w, "client errors %d; increments acknowledged %d, stored %d, lost %d, doubled %d; differing replies %d\n",
		r.ClientErrors, r.Acknowledged, r.Stored, r.Lost, r.Doubled, r.DifferingReplies)
	for _, g := range r.Growth {
		fmt.Fprintf(w, "%s: %d early, %d late\n", g.What, g.Early, g.Late)
	}
	for _, f := range r.Faults {
		fmt.Fprintf(w, "FAULT: %s\n", f)
	}
	if len(r.Faults) == 0 {
		fmt.Fprintln(w, "OK: clients noticed a pause, nothing else")
	}
	return nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
