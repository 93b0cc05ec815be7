package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/crsc-io/crsc/testing/env"
)

// ErrFailed is returned when a client saw an error or a wrong reply, an
// increment was lost or applied twice, a crash was not recovered, or the shim
// grew. The report says which.
var ErrFailed = errors.New("the run failed")

// Options say what to run and how to treat it.
type Options struct {
	Instance       string        // of the environment; default "demo"
	Tools          []string      // see env.Env.WithTools
	Runtime        string        // default env.RuntimeCRSC
	Flags          []string      // further flags of ctr run
	Kills          int           // 0: a plain run of the length Duration
	Connections    int           // default 50
	Duration       time.Duration // of the load, roughly; default 4 s for each kill, or 10 s
	Interval       time.Duration // between checkpoints; default 2 s
	Rate           float64       // see load.Options
	ReconnectEvery int           // see load.Options
	Pipeline       int           // see load.Options
	Watch          bool          // watch the shim for growth
	// Check, if there is one, is called under load before the first and after
	// the last crash.
	Check    func(ctx context.Context, e *env.Env, container string) error
	Progress io.Writer // for the progress line; nil: none
	Terminal bool      // Progress is a terminal: the line is rewritten
}

func (o Options) defaultsAndValidate() (Options, error) {
	if o.Instance == "" {
		o.Instance = "demo"
	}
	if o.Runtime == "" {
		o.Runtime = env.RuntimeCRSC
	}
	if o.Connections == 0 {
		o.Connections = 50
	}
	if o.Interval == 0 {
		o.Interval = 2 * time.Second
	}
	if o.Duration == 0 {
		o.Duration = max(10*time.Second, time.Duration(o.Kills)*4*time.Second)
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if o.Kills < 0 || o.Connections < 0 || o.Duration < 0 || o.Interval < 0 {
		return o, fmt.Errorf("demo options: negative value in %+v", o)
	}
	return o, nil
}
