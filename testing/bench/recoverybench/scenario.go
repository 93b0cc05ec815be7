package recoverybench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/load"
)

// ErrNotHidden is returned when clients noticed more than a pause.
var ErrNotHidden = errors.New("a crash was not hidden")

// aftermath is how long after a recovery a client may still be seen waiting.
const aftermath = time.Second

// scenario is a load and a number of crashes under it.
type scenario struct {
	name, note string
	kills      int
	pause      time.Duration // between two kills, on average
	interval   time.Duration // between checkpoints
	load       load.Options
	idle       int // further connections, which wait
}

// outcome is what a scenario has shown.
type outcome struct {
	scenario
	crashes []bench.Crash
	stalls  bench.Sample // longest wait of a client in each crash
	result  load.Result
	state   *status.Status // at the end
	seconds float64        // of load
}

// run returns an outcome also with ErrNotHidden.
func (s scenario) run(ctx context.Context, rig *bench.Rig) (*outcome, error) {
	server, err := rig.StartRedis(ctx, bench.ServerOptions{ID: s.name, Pod: s.name, Settings: map[string]string{
		"checkpoint-interval": s.interval.String(), "recovery-budget": "unlimited",
	}, Files: s.files()})
	if err != nil {
		return nil, err
	}
	waiting, err := openIdle(rig, server.Addr, s.idle)
	if err != nil {
		return nil, err
	}
	defer waiting.close()
	if err := awaitCheckpoint(ctx, server, s.idle); err != nil {
		return nil, err
	}
	s.load.Netns, s.load.Target = rig.Env.Client().Path, server.Addr
	clients, err := load.Start(ctx, s.load)
	if err != nil {
		return nil, err
	}
	o := &outcome{scenario: s}
	begun := time.Now()
	err = o.crash(ctx, server)
	o.seconds = time.Since(begun).Seconds()
	// What cannot be read back counts as lost in clean.
	result, stopErr := clients.Stop(ctx)
	o.result = result
	if err = errors.Join(err, stopErr); err != nil {
		return nil, fmt.Errorf("%s: %w: %v %v", s.name, err, result.Errors, result.Wrong)
	}
	o.measure(clients)
	if o.state, err = server.Status(); err != nil {
		return nil, err
	}
	if err := waiting.count("2"); err != nil {
		return o, fmt.Errorf("%w: %s: %w", ErrNotHidden, s.name, err)
	}
	return o, errors.Join(o.check(), server.Remove(ctx))
}

// files is how many files the server has to open; 0: as many as it may anyway.
func (s scenario) files() uint64 {
	if s.idle == 0 {
		return 0
	}
	return uint64(s.idle) + 1024
}

// crash kills the server at random moments.
func (o *outcome) crash(ctx context.Context, server *bench.Server) error {
	for range o.kills {
		moment := time.Duration((0.5 + rand.Float64()) * float64(o.pause))
		if err := bench.Pause(ctx, moment); err != nil {
			return err
		}
		c, err := server.Crash(ctx)
		if err != nil {
			return err
		}
		o.crashes = append(o.crashes, c)
	}
	return bench.Pause(ctx, aftermath)
}

func (o *outcome) measure(clients *load.Load) {
	for i, c := range o.crashes {
		end := c.Live.Add(aftermath)
		if i+1 < len(o.crashes) && o.crashes[i+1].Killed.Before(end) {
			end = o.crashes[i+1].Killed
		}
		o.stalls = append(o.stalls, bench.Millis(clients.LongestBetween(c.Killed, end)))
	}
}

// check is the promise.
func (o *outcome) check() error {
	differing, reset := uint64(0), 0
	for _, c := range o.crashes {
		differing += c.Differing
		reset += c.Reset
	}
	if o.result.Clean() && differing == 0 && reset == 0 && o.state.RecoveryFailed == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: %d client errors, %d wrong replies, %d lost, %d doubled, %d differing outputs, %d connections reset, %d recoveries failed: %v %v",
		ErrNotHidden, o.name, o.result.ClientErrors, o.result.WrongReplies, o.result.Lost, o.result.Doubled,
		differing, reset, o.state.RecoveryFailed, o.result.Errors, o.result.Wrong)
}

// of takes one figure of each recovery.
func (o *outcome) of(figure func(status.Recovery) float64) (s bench.Sample) {
	for _, c := range o.crashes {
		s = append(s, figure(c.Recovery))
	}
	return s
}
