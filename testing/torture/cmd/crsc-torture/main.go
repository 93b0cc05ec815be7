// The command crsc-torture is what make torture runs.
package main

import (
	"context"
	"flag"
	"os"
	"strings"

	"github.com/crsc-io/crsc/testing/longrun"
	"github.com/crsc-io/crsc/testing/torture"
)

func main() {
	o := torture.Options{Progress: os.Stderr}
	flag.StringVar(&o.Instance, "instance", "torture", "which environment of this clone to use, and to destroy at the end")
	flag.BoolVar(&o.NoKills, "no-kills", false, "leave the runs with kills out")
	names := flag.String("names", "", "comma-separated `list` of tools; default: all")
	out := flag.String("out", "out/torture.json", "`file` for the results")
	flag.Parse()
	if *names != "" {
		o.Names = strings.Split(*names, ",")
	}
	longrun.Main("torture", func(ctx context.Context) error {
		report, err := torture.Run(ctx, o)
		return longrun.Report(*out, report, err)
	})
}
