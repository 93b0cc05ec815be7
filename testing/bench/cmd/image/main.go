// The command image is what make bench BENCH=image runs.
package main

import (
	"os"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/bench/imagebench"
)

func main() { os.Exit(bench.Main(&imagebench.Benchmark{}, os.Args[1:])) }
