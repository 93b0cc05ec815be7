package workloads

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Options say what to run.
type Options struct {
	Instance string // of the test environment; it is destroyed at the end
	// Names of the workloads; empty: all.
	Names []string
	// Kills of each workload's container.
	Kills int
	// Gap is the mean time between two kills; 0: 1 s.
	Gap time.Duration
	// Interval of checkpoints; 0: 500 ms.
	Interval time.Duration
	Progress io.Writer
}

func (o Options) defaultsAndValidate() (Options, error) {
	if o.Kills < 1 || o.Gap < 0 || o.Interval < 0 {
		return o, errors.New("workloads: kills, gap and interval are positive")
	}
	if o.Gap == 0 {
		o.Gap = time.Second
	}
	if o.Interval == 0 {
		o.Interval = 500 * time.Millisecond
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	var known []string
	for _, w := range table() {
		known = append(known, w.name)
	}
	for _, n := range o.Names {
		if !slices.Contains(known, n) {
			return o, fmt.Errorf("workloads: there is no %q, but %q", n, known)
		}
	}
	if len(o.Names) == 0 {
		o.Names = known
	}
	return o, nil
}
