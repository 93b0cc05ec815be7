// Package paritybench compares what the shim costs a container that does not
// ask for protection with what containerd's own shim costs: the memory of the
// shim's process, the time of `ctr run --rm true`, and that of an exec of true.
// The two are measured in turn, and the medians and the median of the ratios of
// neighbours are reported.
//
//	make bench BENCH=parity
package paritybench
