// The command crsc-matrix is what make matrix runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/longrun"
	"github.com/crsc-io/crsc/testing/matrix"
)

// report is the file that is written.
type report struct {
	Passed int           `json:"passed"`
	Failed int           `json:"failed"`
	Cells  []matrix.Cell `json:"cells"`
}

func main() {
	out := flag.String("out", "out/matrix.json", "`file` for the result")
	only := flag.String("only", "", "only pairs whose name contains this `text`")
	flag.Parse()
	longrun.Main("matrix", func(ctx context.Context) error { return run(ctx, *only, *out) })
}

func run(ctx context.Context, only, out string) error {
	e, err := env.Locate("")
	if err != nil {
		return err
	}
	all, err := matrix.Pairs(e.Root)
	if err != nil {
		return err
	}
	if err := matrix.Install(ctx, e.Root, all); err != nil {
		return err
	}
	r := report{Cells: []matrix.Cell{}}
	for _, p := range all {
		if !strings.Contains(p.String(), only) {
			continue
		}
		c := matrix.Run(ctx, p)
		if err := ctx.Err(); err != nil {
			return err
		}
		r.Cells = append(r.Cells, c)
		if c.OK {
			r.Passed++
		} else {
			r.Failed++
		}
		fmt.Printf("%-35s ok=%-5t recovered %d, longest stall %.0f ms %s\n", p, c.OK, c.Recovered, c.StallMS, c.Error)
	}
	if err := longrun.WriteJSON(out, r); err != nil {
		return err
	}
	if r.Failed > 0 || r.Passed == 0 {
		return fmt.Errorf("%d of %d pairs failed", r.Failed, len(r.Cells))
	}
	return nil
}
