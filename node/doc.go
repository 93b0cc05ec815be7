// Package node puts crsc onto a Kubernetes node and takes it away again. It is
// the work of the first container of the DaemonSet in deploy/.
//
// What it puts there:
//
//	<prefix>/bin/…            the programs: shim, crsc, CRIU
//	/etc/crsc/config.toml     the node file
//	<conf.d>/crsc.toml        a containerd runtime called crsc, which is a copy of
//	                          the runc that the node has, with our shim
//	/etc/containerd/config.toml  one import, if the drop-in is not imported already
//
// Distributions have their files elsewhere, and write them anew themselves: then
// the drop-in goes where they import it, and nothing else is changed. The table of
// layouts has what we know of them.
//
// Where a package or the maker of the node's image has put the programs, only
// containerd's configuration is done here.
//
// The node goes before us. Files change only by rename. Before containerd is
// restarted it is asked, with its own binary, what it would make of the new
// configuration; unless that holds everything that it held before, all is put
// back as it was. containerd is restarted only if its configuration changed:
// a new shim is used by the next container, and running ones keep theirs.
package node
