// Package env gives tests, the demo and developers a private containerd and a
// private network, beside whatever else runs on the host.
//
// An environment belongs to one clone of the repository and to one instance
// name (usually empty), so several exist side by side. It consists of
//
//   - a containerd daemon with root, state, sockets, configuration and log
//     under one directory in the temporary directory ([Env.Dir]);
//   - a containerd namespace of its own ([Env.Namespace]), which also keeps
//     apart what the shims put at fixed places: the runc state in
//     /run/containerd/runc/NAMESPACE and the cgroups /NAMESPACE/ID;
//   - a network namespace for clients, and one per pod, each pod joined to the
//     clients by a veth pair with IPv4 (198.18.N.0/24, RFC 2544) and IPv6
//     (fdc5:c000:N::/64, RFC 4193) and a default route.
//
// [Env.Down] finds all of it again without the daemon's help, so it works also
// when the daemon is dead or start-up was interrupted. All state changes are
// made under a lock file, so concurrent test binaries share one environment.
//
// Go tests use [Require]. The shell commands testing/env/env and
// testing/env/image are the same thing for everybody else.
package env
