// Package lifecycle owns containers and their processes: the state machine,
// the standard streams, exits, events, cgroup statistics and OOM notices. It
// drives runc through its command line, as containerd's own runc shim does,
// and without a [Guard] behaves as that shim does.
//
// A [Supervisor] holds the containers of one shim process. Its methods and
// those of [Container] may be called concurrently; the invariants are:
//
//   - Reads ([Container.State], [Container.Stats], [Container.Wait]) never wait
//     for a running operation. A container's mutex is never held across runc,
//     CRIU or file I/O that can block.
//   - Operations that must not overlap (start, pause, checkpoint, restore,
//     delete, …) take turns through [Container.Exclusive].
//   - Events of one container are published in the order in which they
//     happened, and the exit of init is published after those of all execs.
//   - An exit is never lost, however early it comes: a [tracker] collects every
//     exit from before a process is started until its PID is known.
//
// A Guard may withhold the exit of init and bring the container back
// ([Container.Restore]). While it does, the container is in [PhaseRecovering]:
// Wait keeps waiting, State says running, a SIGKILL ends the recovery at once,
// other signals reach the new init. Its standard streams are new pipes, or a new
// terminal, behind which the client's side goes on ([Stdio]).
//
// All children of the shim are reaped by containerd's pkg/sys/reaper. A child
// that is started any other way than through [StartCommand], [RunCommand] or
// go-runc may get ECHILD from Wait.
package lifecycle
