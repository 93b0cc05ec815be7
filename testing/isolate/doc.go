// Package isolate runs a whole program, usually a test or what a make target
// starts, beside the host instead of on it: in mount, network, process, IPC
// and cgroup namespaces of its own. It is for parts that insist on fixed places
// (CNI's bridge, CRI's cgroups, nerdctl's data), where package env cannot give
// each clone its own.
//
//	func main() {
//		inside, status, err := isolate.Enter(isolate.Options{Name: "critest"})
//		if !inside { … os.Exit(status) }
//		// from here on: the same program, isolated
//	}
//
// # Invariants
//
//   - [Enter] starts the program once more, with the same arguments, as a child
//     of a small init that reaps orphans. When either ends, for whatever reason,
//     the kernel ends every process inside.
//   - Inside, /run is empty, and what is written below /etc, /opt, /var/lib and
//     /var/log goes to memory and is lost at the end. Mounts are shared among
//     what runs inside and never reach the host.
//   - Inside, the root of every cgroup hierarchy is a group of this run, which
//     Enter removes at the end; one that a killed run left is removed by the
//     next.
//   - The only network device inside is the loopback device, which is up.
package isolate
