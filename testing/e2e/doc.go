// Package e2e tests the product as an operator meets it: a real containerd, its
// ctr, the built shim, CRIU, Redis, and clients in another network namespace
// that check every reply. It holds tests only.
//
// # Use
//
//	make build && go test -race ./testing/e2e
//	go test -race ./testing/e2e -run 'TestStop/KILL'
//
// The tests run the binaries in bin/, and fail at once if those are missing or
// older than the sources: `make build`.
//
// # Invariants
//
//   - All tests share one environment, the instance "e2e" (package env), with a
//     network namespace and a container of each test's own. What a test starts
//     is gone when it ends, also when it fails.
//   - A test asserts what a user would notice: bytes a client received, what is
//     stored, what ctr prints, what is left behind. Times are bounds that only
//     something broken exceeds: the machine may be slow.
//   - Tests that change the node's file, or count what exists on the host, do
//     not run in parallel with others.
package e2e
