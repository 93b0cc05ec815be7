// The command datagrams is what make bench BENCH=datagrams runs; with -serve it is
// the server.
package main

import (
	"fmt"
	"os"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/bench/datagrambench"
	"github.com/crsc-io/crsc/testing/datagrams"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == datagrambench.ServeCommand {
		fmt.Fprintln(os.Stderr, "datagrams:", datagrams.Serve())
		os.Exit(1)
	}
	os.Exit(bench.Main(&datagrambench.Benchmark{}, os.Args[1:]))
}
