package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/crsc-io/crsc/testing/longrun"
)

// Benchmark is one of them.
type Benchmark interface {
	// Name is that of the command and of the file with the figures.
	Name() string
	// Flags registers the benchmark's own options.
	Flags(*flag.FlagSet)
	// Run measures. What it has added to the results by the time it fails is
	// printed and written all the same.
	Run(ctx context.Context, rig *Rig, out *Results) error
}

// Main runs a benchmark as a program and returns its exit status: 0 only if
// everything was measured and nothing went wrong meanwhile.
func Main(b Benchmark, args []string) int {
	flags := flag.NewFlagSet(b.Name(), flag.ExitOnError)
	file := flags.String("out", "out/bench/"+b.Name()+".json", "`file` for the figures")
	instance := flags.String("instance", "b"+b.Name(), "which environment of this clone to use, and to destroy at the end")
	markdown := flags.Bool("markdown", false, "print Markdown")
	b.Flags(flags)
	if err := flags.Parse(args); err != nil {
		return 2 // not reached: ExitOnError
	}
	ctx, stop := longrun.Context()
	defer stop()
	results := &Results{}
	err := run(ctx, b, *instance, results, logBeside(*file))
	if ctx.Err() != nil {
		fmt.Fprintf(os.Stderr, "%s: interrupted: %v\n", b.Name(), err)
		return 1
	}
	err = errors.Join(err, results.Print(os.Stdout, *markdown), results.WriteJSON(*file))
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", b.Name(), err)
		return 1
	}
	return 0
}

// logBeside names the file in which the log of a failed run is kept.
func logBeside(file string) string { return strings.TrimSuffix(file, ".json") + ".log" }

func run(ctx context.Context, b Benchmark, instance string, out *Results, log string) (err error) {
	out.Add("machine_load_before", loadAverage(), "processes", "average of the minute before; the benchmark is alone on the machine if this is near 0")
	rig, err := Open(ctx, instance, os.Stderr)
	defer func() { err = errors.Join(err, rig.Close()) }()
	if err != nil {
		return err
	}
	if err = b.Run(ctx, rig, out); err != nil && ctx.Err() == nil {
		err = errors.Join(err, rig.keepLog(log))
	}
	return err
}

// loadAverage is the first field of /proc/loadavg, proc(5); -1 without it.
func loadAverage() float64 {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(string(data), " ")
	v, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return v
}
