// Package shimtest runs shims in a private containerd for the tests of package
// shim. Nothing of the host's containerd is touched, and nothing is left behind:
// the daemon, its shims, their containers and cgroups go with the test.
package shimtest
