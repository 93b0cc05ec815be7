package egress

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/kills"
)

const containerID = "teller"

// readyLimit bounds each wait for something that takes well under a second when
// all is well.
const readyLimit = 30 * time.Second

// Report is what a run has shown.
type Report struct {
	kills.Count
	Served       int     `json:"served"`
	Charged      int     `json:"charged"`
	Doubled      int     `json:"doubled"`
	ClientErrors int     `json:"client_errors"`
	Beats        int     `json:"made_by_timer"` // among Charged
	MissingBeats int     `json:"missing_by_timer"`
	Connections  int     `json:"connections_to_the_bank"`
	LongestMS    float64 `json:"longest_stall_ms"`
}

// Run does everything from bringing the environment up to destroying it.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if err := o.defaultsAndValidate(); err != nil {
		return nil, err
	}
	err = env.While(ctx, o.Instance, nil, func(e *env.Env) (err error) {
		report, err = play(ctx, e, o)
		return errors.Join(err, e.KeepLog(o.Log))
	})
	return report, err
}

func play(ctx context.Context, e *env.Env, o Options) (*Report, error) {
	bank, err := openBank(ctx, e, o.Teller)
	if err != nil {
		return nil, err
	}
	defer bank.Close()
	if err := start(ctx, e, o); err != nil {
		return nil, err
	}
	var clients *Clients
	err = kills.Await(ctx, e, containerID, readyLimit, func(context.Context) (err error) {
		clients, err = StartClients(ctx, e.Client().Path, netip.AddrPortFrom(e.Pod().IP4, 80), o.Clients)
		return err
	})
	if err != nil {
		return nil, err
	}
	r := &Report{}
	r.Count, err = kills.Play(ctx, kills.Plan{
		Env: e, ID: containerID, Kills: o.Kills, Gap: o.Gap, Limit: readyLimit, Progress: o.Progress,
	})
	served, longest, errs := clients.Stop()
	if err != nil {
		return nil, err
	}
	r.Served, r.LongestMS, r.ClientErrors = served, float64(longest.Microseconds())/1000, len(errs)
	if err := r.count(ctx, bank); err != nil {
		return nil, err
	}
	return r, r.judge(o, errs)
}

// judge says what is wrong.
func (r *Report) judge(o Options, errs []error) error {
	for _, err := range errs[:min(len(errs), 5)] {
		r.Faults = append(r.Faults, err.Error())
	}
	return r.Judge(ErrFailed, []kills.Fault{
		{Is: r.ClientErrors > 0, What: "clients saw errors"},
		{Is: r.Served+r.Beats+r.Doubled != r.Charged, What: "served and charged differ"},
		{Is: r.MissingBeats > 0, What: "a charge by the timer was lost"},
		{Is: o.Beat > 0 && r.Beats == 0, What: "nothing was charged by the timer"},
		{Is: r.Doubled > 0, What: "a charge was made twice"},
		{Is: r.Served == 0, What: "nobody was served"},
	})
}
