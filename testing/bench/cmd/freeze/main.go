// The command freeze is what make bench BENCH=freeze runs.
package main

import (
	"os"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/bench/freezebench"
)

func main() { os.Exit(bench.Main(&freezebench.Benchmark{}, os.Args[1:])) }
