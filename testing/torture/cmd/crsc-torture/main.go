// The command crsc-torture is what make torture runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	report, err := torture.Run(ctx, o)
	if report != nil {
		err = errors.Join(err, report.WriteJSON(*out))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}
