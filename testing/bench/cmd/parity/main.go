// The command parity is what make bench BENCH=parity runs.
package main

import (
	"os"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/bench/paritybench"
)

func main() { os.Exit(bench.Main(&paritybench.Benchmark{}, os.Args[1:])) }
