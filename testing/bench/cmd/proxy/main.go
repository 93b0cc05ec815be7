// The command proxy is what make bench BENCH=proxy runs.
package main

import (
	"os"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/bench/proxybench"
)

func main() { os.Exit(bench.Main(&proxybench.Benchmark{}, os.Args[1:])) }
