// The command crsc-demo is what make demo and make soak run.
package main

import (
	"context"
	"errors"
	"flag"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/testing/demo"
	"github.com/crsc-io/crsc/testing/longrun"
)

func main() {
	o := demo.Options{Progress: os.Stderr}
	flag.StringVar(&o.Instance, "instance", "demo", "which environment of this clone to use, and to destroy at the end")
	flag.StringVar(&o.Runtime, "runtime", "", "another runtime, to compare")
	flag.IntVar(&o.Kills, "kills", 5, "how often to kill the container's init")
	flag.IntVar(&o.Connections, "connections", 50, "number of clients")
	flag.DurationVar(&o.Duration, "duration", 0, "length of the load, roughly; default: 4s for each kill")
	flag.DurationVar(&o.Interval, "interval", 0, "checkpoint interval; default: 2s")
	flag.Float64Var(&o.Rate, "rate", 0, "requests per second of all clients together; 0: as many as possible")
	flag.IntVar(&o.ReconnectEvery, "reconnect-every", 0, "open a new connection after so many requests; 0: never")
	flag.IntVar(&o.Pipeline, "pipeline", 1, "requests in flight per client")
	flag.BoolVar(&o.Watch, "watch", false, "fail if the shim grows; the file then holds all figures")
	out := flag.String("out", "out/demo.json", "`file` for the figures")
	flag.Parse()
	_, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS)
	o.Terminal = err == nil
	longrun.Main("demo", func(ctx context.Context) error {
		report, err := demo.Run(ctx, o)
		if report != nil {
			err = errors.Join(err, report.WriteTable(os.Stdout), report.WriteJSON(*out, o.Watch))
		}
		return err
	})
}
