package critest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/crsc-io/crsc/testing/env"
)

// Handlers that can be compared with runc.
const (
	HandlerCrsc      = "crsc"
	HandlerProtected = "crsc-protected"
)

// Options of a comparison.
type Options struct {
	Program  string   // the built testing/critest/program
	Handlers []string // to compare with runc; those above
	Focus    string   // regular expression of specs; empty: all
	LogDir   string   // for the suite's logs and, after a difference, containerd's
	Progress io.Writer
}

// Run compares. It must be called isolated. The report is there also when an
// error is returned after the first run of the suite.
//
// Errors: a handler that does not exist, a run that wrote no report.
func Run(ctx context.Context, o Options) (*Report, error) {
	for _, h := range o.Handlers {
		if h != HandlerCrsc && h != HandlerProtected {
			return nil, fmt.Errorf("unknown handler %q (there are %s and %s)", h, HandlerCrsc, HandlerProtected)
		}
	}
	e, err := env.Locate("")
	if err != nil {
		return nil, err
	}
	n, err := startNode(ctx, e, o.Program)
	if err != nil {
		return nil, err
	}
	r := &Report{Diffs: []Difference{}}
	base, err := n.measure(ctx, o, "runc", &r.Runc)
	if err != nil {
		return nil, err
	}
	for _, h := range slices.Compact(o.Handlers) {
		into := &r.Crsc
		if h == HandlerProtected {
			into = &r.Protected
		}
		specs, err := n.measure(ctx, o, h, into)
		if err != nil {
			return r, err
		}
		r.Diffs = append(r.Diffs, compare(h, base, specs)...)
	}
	return r, errors.Join(n.keepLog(filepath.Join(o.LogDir, "critest-containerd.log")), ctx.Err())
}

// measure runs the suite once and counts.
func (n *node) measure(ctx context.Context, o Options, handler string, into **Tally) ([]spec, error) {
	fmt.Fprintf(o.Progress, "critest with %s …\n", handler)
	if err := n.protectAll(handler == HandlerProtected); err != nil {
		return nil, err
	}
	name := handler
	if handler == HandlerProtected {
		name = HandlerCrsc
	}
	start := time.Now()
	specs, err := n.runSuite(ctx, name, o.Focus, filepath.Join(o.LogDir, "critest-"+handler+".log"))
	if err != nil {
		return nil, err
	}
	*into = tally(specs)
	(*into).Seconds = time.Since(start).Seconds()
	return specs, nil
}
