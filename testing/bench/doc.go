// Package bench holds what the benchmarks share: a private environment with
// Redis servers in containers, a prober that measures what one client notices,
// samples and their quantiles, tables for people and figures for machines.
//
// A benchmark is a [Benchmark] in a package of its own below this one, and a
// main below cmd that hands it to [Main]:
//
//	make bench BENCH=recovery
//
// Each writes a list of [Result] to out/bench/<name>.json. The machine is
// shared with whatever else runs on it, so figures that are to be compared are
// measured in turn, round by round, and what is kept is the ratio.
//
// Nothing is left behind, also when a benchmark is interrupted: everything lives
// in an environment (package env) that is destroyed at the end, and before the
// start in case the last run was killed.
package bench
