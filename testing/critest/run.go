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

// check names what is not there.
//
// Errors: a handler that does not exist.
func (o Options) check() error {
	for _, h := range o.Handlers {
		if h != HandlerCrsc && h != HandlerProtected {
			return fmt.Errorf("unknown handler %q (there are %s and %s)", h, HandlerCrsc, HandlerProtected)
		}
	}
	return nil
}

// Run compares. It must be called isolated. The report is there also when an
// error is returned after the first run of the suite.
//
// Errors: a handler that does not exist, a run that wrote no report.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	e, err := env.Locate("")
	if err != nil {
		return nil, err
	}
	n, err := startNode(ctx, e, nodeOptions{program: o.Program})
	if err != nil {
		return nil, err
	}
	r, err := compareAll(o, func(handler string) ([]spec, error) { return n.measure(ctx, o, handler) })
	if err != nil {
		return r, err
	}
	return r, errors.Join(n.keepLog(filepath.Join(o.LogDir, "critest-containerd.log")), ctx.Err())
}

// compareAll runs a suite with runc and with each handler.
func compareAll(o Options, run func(handler string) ([]spec, error)) (*Report, error) {
	r := &Report{Diffs: []Difference{}}
	var base []spec
	for _, h := range append([]string{"runc"}, slices.Compact(o.Handlers)...) {
		fmt.Fprintf(o.Progress, "with %s …\n", h)
		start := time.Now()
		specs, err := run(h)
		if err != nil && base == nil {
			return nil, err
		} else if err != nil {
			return r, err
		}
		t := tally(specs)
		t.Seconds = time.Since(start).Seconds()
		switch h {
		case HandlerCrsc:
			r.Crsc = t
		case HandlerProtected:
			r.Protected = t
		default:
			r.Runc, base = t, specs
			continue
		}
		r.Diffs = append(r.Diffs, compare(h, base, specs)...)
	}
	return r, nil
}

// measure runs the suite once.
func (n *node) measure(ctx context.Context, o Options, handler string) ([]spec, error) {
	if err := writeNode(n.file, n.env, handler == HandlerProtected); err != nil {
		return nil, err
	}
	name := handler
	if handler == HandlerProtected {
		name = HandlerCrsc
	}
	return n.runSuite(ctx, name, o.Focus, filepath.Join(o.LogDir, "critest-"+handler+".log"))
}
