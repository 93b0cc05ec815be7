package workloads

import (
	"fmt"
	"slices"

	"github.com/crsc-io/crsc/status"
)

// Report is out/workloads.json.
type Report struct {
	// Sums over all workloads.
	Kills         int `json:"kills"`
	Checks        int `json:"checks"`
	Disagreements int `json:"disagreements"`
	Requests      int `json:"requests"`
	ClientErrors  int `json:"client_errors"`
	// Failed counts the workloads that did not come through.
	Failed    int                `json:"failed"`
	Workloads map[string]*Result `json:"workloads"`
}

// Result is what became of one workload.
type Result struct {
	Kills int `json:"kills"`
	// Checks are those after a kill at which everything agreed.
	Checks        int     `json:"checks"`
	Disagreements int     `json:"disagreements"`
	Requests      int     `json:"requests"`
	ClientErrors  int     `json:"client_errors"`
	Seconds       float64 `json:"seconds"`
	Checkpoints   int     `json:"checkpoints"`
	// CheckpointsFailed: the container ran on, protected by those before.
	CheckpointsFailed int `json:"checkpoints_failed"`
	// Attempts are the rungs of the ladder that recoveries took in all.
	Attempts      int     `json:"attempts"`
	Reset         int     `json:"reset_connections"`
	RecoveryP50MS float64 `json:"recovery_p50_ms"`
	RecoveryMaxMS float64 `json:"recovery_max_ms"`
	// Phases are the medians of the parts of a recovery, in milliseconds.
	Phases  map[string]float64 `json:"phases_p50_ms,omitempty"`
	Failure string             `json:"failure,omitempty"`
}

// from takes over what the status tells.
func (r *Result) from(st *status.Status) {
	r.Checkpoints, r.CheckpointsFailed = st.Checkpoints.Count, st.Checkpoints.Failed
	var took []float64
	for _, rec := range st.Recoveries {
		took = append(took, rec.TotalMS)
		r.Attempts += rec.Attempts
		r.Reset += rec.Reset
	}
	slices.Sort(took)
	n := len(took)
	if n == 0 {
		return
	}
	r.RecoveryP50MS, r.RecoveryMaxMS = took[n/2], took[n-1]
	r.Phases = map[string]float64{}
	for name, part := range phases() {
		for i, rec := range st.Recoveries {
			took[i] = part(rec)
		}
		slices.Sort(took)
		r.Phases[name] = took[n/2]
	}
}

// phases are the parts of a recovery that the status tells.
func phases() map[string]func(status.Recovery) float64 {
	return map[string]func(status.Recovery) float64{
		"detect":   func(r status.Recovery) float64 { return r.DetectMS },
		"drain":    func(r status.Recovery) float64 { return r.DrainMS },
		"plan":     func(r status.Recovery) float64 { return r.PlanMS },
		"rollback": func(r status.Recovery) float64 { return r.RollbackMS },
		"legs":     func(r status.Recovery) float64 { return r.LegsMS },
		"criu":     func(r status.Recovery) float64 { return r.CRIUMS },
		"replay":   func(r status.Recovery) float64 { return r.ReplayMS },
	}
}

// ok says that the workload came through.
func (r *Result) ok() bool {
	return r.Failure == "" && r.Kills > 0 && r.Checks == r.Kills && r.Disagreements == 0 && r.Requests > 0 && r.ClientErrors == 0
}

func (r *Result) String() string {
	s := fmt.Sprintf("%d kills, %d checks agreed, %d requests, %d client errors, recovery %.0f/%.0f ms",
		r.Kills, r.Checks, r.Requests, r.ClientErrors, r.RecoveryP50MS, r.RecoveryMaxMS)
	if r.Failure != "" {
		s += ": " + r.Failure
	}
	return s
}

func (r *Report) add(w *Result) {
	r.Kills += w.Kills
	r.Checks += w.Checks
	r.Disagreements += w.Disagreements
	r.Requests += w.Requests
	r.ClientErrors += w.ClientErrors
	if !w.ok() {
		r.Failed++
	}
}
