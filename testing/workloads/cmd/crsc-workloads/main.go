// The command crsc-workloads is what make workloads runs.
package main

import (
	"context"
	"flag"
	"os"
	"strings"

	"github.com/crsc-io/crsc/testing/longrun"
	"github.com/crsc-io/crsc/testing/workloads"
)

func main() {
	o := workloads.Options{Progress: os.Stderr}
	flag.StringVar(&o.Instance, "instance", "workloads", "which environment of this clone to use, and to destroy at the end")
	flag.IntVar(&o.Kills, "kills", 100, "how often to kill each container's init")
	flag.DurationVar(&o.Gap, "gap", 0, "mean time between two kills; default: 1s")
	flag.DurationVar(&o.Interval, "interval", 0, "checkpoint interval; default: 500ms")
	names := flag.String("names", "", "comma-separated `list` of workloads; default: all")
	out := flag.String("out", "out/workloads.json", "`file` for the figures")
	flag.Parse()
	if *names != "" {
		o.Names = strings.Split(*names, ",")
	}
	longrun.Main("workloads", func(ctx context.Context) error {
		report, err := workloads.Run(ctx, o)
		return longrun.Report(*out, report, err)
	})
}
