package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/crsc-io/crsc/status"
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
	Connections  int     `json:"connections_to_the_bank"`
	LongestMS    float64 `json:"longest_stall_ms"`
}

// Run does everything from bringing the environment up to destroying it.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if err := o.defaultsAndValidate(); err != nil {
		return nil, err
	}
	e, err := env.Locate(o.Instance)
	if err != nil {
		return nil, err
	}
	// What a run that was killed left behind, container included.
	if err := e.Down(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Down(context.WithoutCancel(ctx))) }()
	if err := e.Up(ctx); err != nil {
		return nil, err
	}
	bank, err := OpenBank(e.Client().Path, e.Pod().ClientIP4)
	if err != nil {
		return nil, err
	}
	defer bank.Close()
	if err := start(ctx, e, o); err != nil {
		return nil, err
	}
	clients, err := awaitService(ctx, e, o.Clients)
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
	r.Charged, r.Doubled, r.Connections = bank.Charged()
	return r, r.judge(errs)
}

// awaitService connects the clients when the teller listens and is protected.
func awaitService(ctx context.Context, e *env.Env, n int) (*Clients, error) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		s, err := status.Read(filepath.Dir(e.StatusFile(containerID)))
		if err == nil && !s.Protected {
			err = fmt.Errorf("unprotected: %s", s.Reason)
		}
		if err == nil {
			var c *Clients
			if c, err = StartClients(ctx, e.Client().Path, netip.AddrPortFrom(e.Pod().IP4, 80), n); err == nil {
				return c, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the teller does not serve: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// judge says what is wrong.
func (r *Report) judge(errs []error) error {
	for _, err := range errs[:min(len(errs), 5)] {
		r.Faults = append(r.Faults, err.Error())
	}
	for _, bad := range []struct {
		is   bool
		what string
	}{
		{r.Recovered != r.Kills, "a crash was not recovered"},
		{r.ClientErrors > 0, "clients saw errors"},
		{r.Served != r.Charged, "served and charged differ"},
		{r.Doubled > 0, "a charge was made twice"},
		{r.Served == 0, "nobody was served"},
	} {
		if bad.is {
			r.Faults = append(r.Faults, bad.what)
		}
	}
	if len(r.Faults) > 0 {
		return ErrFailed
	}
	return nil
}

// Write writes the report to a file, making its directory.
func (r *Report) Write(file string) error { return kills.Write(file, r) }
