// The command crsc-egress is what make egress runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/crsc-io/crsc/testing/egress"
	"github.com/crsc-io/crsc/testing/kills"
	"github.com/crsc-io/crsc/testing/longrun"
)

func main() {
	o := egress.Options{Options: kills.Options{Progress: os.Stderr}}
	flag.StringVar(&o.Instance, "instance", "", "which environment of this clone to use, and to destroy at the end; default: egress")
	flag.IntVar(&o.Kills, "kills", 100, "how often to kill the teller")
	teller := flag.String("teller", string(egress.Nginx), "`application` that is killed: nginx, or a server whose threads share a pool: pool (HTTP), redis, postgres")
	flag.IntVar(&o.Idle, "idle", 0, "connections to the bank that a pool keeps idle; default: that of its library")
	flag.IntVar(&o.Most, "most", 0, "connections to the bank that a pool has at most; default: that of its library")
	flag.DurationVar(&o.Beat, "beat", 0, "how often a teller with a pool charges the bank by a timer; default: never")
	flag.IntVar(&o.Clients, "clients", 0, "number of clients; default: 20")
	flag.DurationVar(&o.Gap, "gap", 0, "between two kills, on average; default: 500ms")
	flag.DurationVar(&o.Interval, "interval", 0, "checkpoint interval; default: 1s")
	flag.StringVar(&o.Log, "log", "", "`file` in which to keep containerd's log; default: none")
	out := flag.String("out", "out/egress.json", "`file` for the figures")
	flag.Parse()
	o.Teller = egress.Teller(*teller)
	longrun.Main("egress", func(ctx context.Context) error {
		report, err := egress.Run(ctx, o)
		if report != nil {
			fmt.Printf("%+v\n", *report)
		}
		return longrun.Report(*out, report, err)
	})
}
