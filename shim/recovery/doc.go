// Package recovery protects a container: it checkpoints it, and when its init
// crashes it restores it in place, so that clients notice a pause and nothing
// else. It implements lifecycle.Guard and owns, for one container, the proxy,
// the journal and the checkpoints.
//
// # Identity and state
//
// Everything lives in <state_dir>/<namespace>/<container id>, 0700:
//
//	status.json           what an operator may know, replaced atomically
//	control.sock          where the shim takes orders; see package control
//	journal/              the journal's segments
//	secret/journal.key    a ramfs with the journal's key, crsc.io/journal-encryption
//	checkpoints/<n>/      complete checkpoints; .tmp-<n> are incomplete ones
//	  images/             CRIU's images, unless they are in memory
//	  layer/, scratch-<i> the writable layer and the container's tmpfs mounts
//	  volume-<i>          volumes that go back with the memory
//	  cut.json            where each connection stood
//	memory/<n>/           a tmpfs for images, crsc.io/checkpoint-memory
//	memory/spare/         memory of the images removed last, for the next
//	publish/              what the making of OCI images needs, which a child does
//	beginning/            what came from an image, until it has been restored
//	genesis/              writable layer and tmpfs before the first instruction
//	pins/                 the namespaces and mounts that must outlive the init
//
// <state_dir>/<namespace>/<sandbox>/estates/<place in the pod>/ holds journal and
// checkpoints of a container that has crashed more often than its budget allows,
// until the next one in the pod goes on with them (crsc.io/over-budget). The
// connections wait in the shim meanwhile, with the proxy.
//
// <state_dir>/.inheritance/<container of a pod>/ is a checkpoint that a pod which
// was deleted left to the next one of its name (crsc.io/restore-across-pods).
//
// # Sequences
//
// A checkpoint: hold the proxy until nothing is in flight, freeze, write down
// the cut, capture layer and tmpfs, thaw; then, with the container running
// again, read the images (which also validates them), commit by rename, trim
// the journal.
//
// A recovery: drain the dead application's sockets, build the plan from the cut
// and the journal's tail, roll back layer and tmpfs, re-create the legs, restore,
// feed the tail, go live. When a step fails the next rung of the ladder is
// tried: the previous checkpoint, the start of the container with the whole
// journal, tolerance for connections that came out differently, and at last the
// exit is reported as it was.
//
// # Schedule
//
// One goroutine, the scheduler's, makes all checkpoints of a container. It is
// told of what has happened (notes of input that can't be replayed, pressure,
// the journal's growth, demands) and works out what is due; a lookout finds
// what nobody tells. A lock file for each dump that the node file allows, in
// <state_dir>/.dump-slots, is shared by all shims of the node.
package recovery
