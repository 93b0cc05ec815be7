// Package criu takes checkpoints of a running runc container and restores them
// in place after the container's processes have died.
//
// It drives CRIU itself, over the RPC of `criu swrk`, and leaves runc out of both
// operations: runc's own would freeze the container about three times as long,
// and take as much longer to restore it. A restored container is nevertheless
// runc's: its record (state.json) is carried on, so exec, kill, pause, update,
// events and delete work on it as before.
//
// # Use
//
// In the life of a container:
//
//   - [Probe] once per node.
//   - After `runc create`, before `runc start`: [Pin].
//   - [Dump], as often as wanted. Between the last of its reading and the thaw its
//     OnPostDump captures the writable layer and the [Pins.Scratch] mounts.
//     [Validate] and [TCPSockets] read the result.
//   - [Arm] a restore of the newest checkpoint, if the time of a restore matters.
//   - When the init has died and was waited for: [Armed.Join] at once, roll back
//     the writable layer and the scratch mounts, end every connection that the
//     dead sockets had, then [Armed.Restore]; or all at once with [Restore].
//     Neither `runc delete` nor `runc restore` is run.
//   - After `runc delete`: [Pins.Close].
//
// # What makes it fast
//
// Pins are bind mounts, made by the calling process, of all that lives in the
// container's namespaces and outlives its processes: the network, IPC, UTS and
// cgroup namespaces, in which CRIU is started, so that it dumps none of them, and
// all mounts that are not made by the kernel afresh, so that it archives no
// tmpfs. The images should be on a tmpfs: each of some forty small files costs
// up to 0.3 ms of frozen time on ext4, and more if others write there. Where the
// kernel tracks what is written to, DumpOptions.PreDump copies most memory ahead
// of the freeze; the images are joined after it, so that nobody sees a chain.
//
// # Invariants
//
//   - A failed Dump leaves the container running with all its connections; if
//     CRIU is killed half way, what it did to the sockets is undone (see
//     ErrTorn).
//   - A failed Restore leaves no process and no mount, and can be repeated.
//   - Restored processes run in the namespaces they were dumped in, or not at all.
//   - A restore follows no link on any of the container's mounts but procfs: what
//     was left on a volume leads the host's root nowhere else.
//   - No length or number in an image is believed: malformed images give
//     ErrCorrupt.
//   - Threads that have entered a namespace are thrown away, and are never the
//     main thread of the process.
package criu
