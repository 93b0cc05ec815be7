// The command crsc-k8s runs crsc in a real Kubernetes and writes what came out.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/crsc-io/crsc/testing/k8s/cases"
	"github.com/crsc-io/crsc/testing/k8s/sandbox"
)

func main() {
	o := cases.Options{}
	name := flag.String("instance", "crsc-k8s", "name of the sandbox: of its directory and its cgroups")
	flag.StringVar(&o.Out, "out", "out/k8s.json", "file for the result")
	flag.StringVar(&o.Run, "run", "", "run only cases whose name matches this regular expression")
	flag.StringVar(&o.Shell, "shell", "", "command to run in the sandbox after the cases, for a look around")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if !sandbox.Inside() {
		status, err := sandbox.Run(ctx, *name)
		fail(err)
		os.Exit(status)
	}
	dir, err := sandbox.Enter()
	fail(err)
	ok, err := cases.Run(ctx, dir, o)
	fail(err)
	if !ok {
		os.Exit(1)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "k8s:", err)
		os.Exit(1)
	}
}
