// The command parity is what make bench BENCH=parity runs; with pods it is the
// part of it that runs isolated.
package main

import (
	"os"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/bench/paritybench"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == paritybench.PodsCommand {
		os.Exit(paritybench.Pods(os.Args[2:]))
	}
	os.Exit(bench.Main(&paritybench.Benchmark{}, os.Args[1:]))
}
