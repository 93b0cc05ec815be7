// Package distribution tests what `make dist` and `make install` hand out, the
// way that whoever makes a node's image uses it: the Debian package is installed
// with dpkg, containerd is configured, a protected container crashes and
// recovers, the package is removed, and nothing of it is left. It holds tests
// only.
//
//	make setup && go test ./testing/distribution
//
// # Invariants
//
//   - The whole test binary runs isolated (package isolate), and what is written
//     below /usr, /etc and /var/lib, dpkg's database among them, goes to memory.
//   - Only the host's own programs, containerd, ctr, runc and what was installed
//     are in PATH: no CRIU of the cache.
package distribution
