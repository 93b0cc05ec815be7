// Package paritybench compares what the shim costs a container that does not
// ask for protection with what containerd's own shim costs: the memory of the
// shim's process, the time of `ctr run --rm true`, and that of an exec of true;
// then, through the CRI as a kubelet does it, the start of a pod, ExecSync, and
// the memory of a pod's shim.
// The two are measured in turn, and the medians and the median of the ratios of
// neighbours are reported.
//
//	make bench BENCH=parity
//	make bench BENCH=parity ARGS='-pods 0'	# without the CRI
//
// Pods run isolated (package isolate), in another process of the same program:
// the two runtimes are two handlers of one containerd. They are in the node's
// network namespace, because CNI takes the same time with either and would hide
// a difference.
package paritybench
