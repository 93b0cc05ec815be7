// The command crsc-datagrams is what make datagrams runs; with -serve it is the server.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/crsc-io/crsc/testing/datagrams"
	"github.com/crsc-io/crsc/testing/kills"
	"github.com/crsc-io/crsc/testing/longrun"
)

func main() {
	o := kills.Options{Progress: os.Stderr}
	flag.StringVar(&o.Instance, "instance", "", "which environment of this clone to use, and to destroy at the end; default: datagrams")
	flag.IntVar(&o.Kills, "kills", 100, "how often to kill the server")
	flag.IntVar(&o.Clients, "clients", 0, "number of clients; default: 20")
	flag.DurationVar(&o.Gap, "gap", 0, "between two kills, on average; default: 500ms")
	flag.DurationVar(&o.Interval, "interval", 0, "checkpoint interval; default: 1s")
	out := flag.String("out", "out/datagrams.json", "`file` for the figures")
	serve := flag.Bool("serve", false, "be the server")
	flag.Parse()
	if *serve {
		fmt.Fprintln(os.Stderr, "datagrams:", datagrams.Serve())
		os.Exit(1)
	}
	longrun.Main("datagrams", func(ctx context.Context) error {
		report, err := datagrams.Run(ctx, o)
		if report != nil {
			fmt.Printf("%+v\n", *report)
		}
		return longrun.Report(*out, report, err)
	})
}
