// Package proxybench measures what the proxy and its journal cost while nothing
// crashes: throughput and latency of Redis reached directly, through HAProxy in
// TCP mode, and through us, in one run.
//
// All of them have the same path otherwise: clients in their namespace, a veth
// pair, a pod with Redis under the same shim. "Direct" is a container without
// our annotation, HAProxy runs in that container's pod in front of the same
// Redis, and ours is an annotated container whose checkpoints are off, so that
// only the proxy is measured. Each cell of the table is measured in rounds in
// which the targets take turns, in another order each time. A ratio is the
// median of the rounds' ratios: what else the machine does cancels out.
//
// The load is redis-benchmark, a single thread, which on two cores shares them
// with Redis and the proxy: a proxy costs throughput here even where it would
// not on a machine with cores to spare.
//
// Thousands of connections, their memory, processor time and HTTP are measured
// without containers (see bare): each proxy is then a process that the benchmark
// starts, of its own program or, with -rival, of an earlier build of it.
package proxybench
