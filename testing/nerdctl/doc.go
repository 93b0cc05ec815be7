// Package nerdctl tests the shim under nerdctl, whose ways differ from ctr's and
// CRI's: it sends no runtime options, does the network in OCI hooks, logs
// through a program that the shim starts, and leaves restarts to containerd's
// monitor. It holds tests only.
//
//	make build && go test ./testing/nerdctl
//
// # Invariants
//
//   - The whole test binary runs isolated (package isolate): nerdctl's bridge,
//     its iptables rules and its data are inside.
//   - A test asserts what a user of nerdctl sees, and that what nerdctl has set
//     up for a container is the same after a recovery and gone at the end.
package nerdctl
