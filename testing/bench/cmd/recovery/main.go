// The command recovery is what make bench BENCH=recovery runs.
package main

import (
	"os"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/bench/recoverybench"
)

func main() { os.Exit(bench.Main(&recoverybench.Benchmark{}, os.Args[1:])) }
