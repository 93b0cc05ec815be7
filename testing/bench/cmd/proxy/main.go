// The command proxy is what make bench BENCH=proxy runs.
package main

import (
	"os"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/bench/proxybench"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == proxybench.ServeCommand {
		os.Exit(proxybench.Serve(os.Args[2:]))
	}
	os.Exit(bench.Main(&proxybench.Benchmark{}, os.Args[1:]))
}
