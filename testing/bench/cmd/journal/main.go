// The command journal is what make bench BENCH=journal runs.
package main

import (
	"os"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/bench/journalbench"
)

func main() { os.Exit(bench.Main(&journalbench.Benchmark{}, os.Args[1:])) }
