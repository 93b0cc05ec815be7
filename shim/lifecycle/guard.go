package lifecycle

import (
	"context"
	"syscall"
)

// Guard protects one container. A nil Guard means a plain runc container.
//
// The calls for one container come in this order: Prepare, Created, Started,
// then any of the notices, Exited, and at last Deleted and Close. Signalled may
// come at any time after Created, concurrently with every other call. The
// context of a call that comes from a request ends with that request; a guard
// keeps its own for what lives longer.
//
// A guard may call every method of the container from its own goroutines. From
// within a call it must not wait for an operation on the container to end.
type Guard interface {
	// Prepare is called before `runc create`, with the root filesystem
	// mounted. It may rewrite the bundle's spec (Container.WriteSpec). After an
	// error the container runs unprotected: the guard is closed. ErrRefused
	// fails the creation instead.
	Prepare(ctx context.Context, c *Container) error
	// Created is called when init exists and the user's program has not
	// started: PID, namespaces and cgroup are there. After an error the
	// container runs unprotected: Deleted and Close are called. ErrRefused
	// fails the creation instead.
	Created(ctx context.Context, c *Container) error
	// StartInstead is asked by the start of init. It returns nil if the user's
	// program is to be run, or what makes the container's processes instead: it
	// is called when the created init has been killed, gets new standard streams
	// and returns the PID of the new init, which must be a child of the shim. An
	// error fails the start and ends the container.
	StartInstead(c *Container) StartFunc
	// StartCrashed is asked by the start of init, before StartInstead. True: the
	// created init is killed, and the container starts as one whose init has
	// crashed: Started is called, then Exited with that death, which the guard
	// must take. So a recovery of what another container has left is like any
	// other.
	StartCrashed(c *Container) bool
	// Started is called when the user's program runs, before its exit can be
	// handled.
	Started(ctx context.Context, c *Container)
	// Signalled is called when the orchestrator signals init, before the
	// signal is delivered, also during a recovery. No lock and no turn is held:
	// it may keep the signal back, and use the container, for as long as that is
	// reasonable. Other signals are announced meanwhile.
	Signalled(ctx context.Context, c *Container, sig syscall.Signal)
	// ExecStarted is called when an exec runs in the container.
	ExecStarted(ctx context.Context, c *Container, pid int)
	// Paused and Resumed are called after the container was frozen or thawed
	// on the orchestrator's request.
	Paused(ctx context.Context, c *Container)
	Resumed(ctx context.Context, c *Container)
	// Checkpointing is called before a checkpoint on the orchestrator's request, of a
	// container that runs. No turn is held. True: established connections may go into
	// the images, whose other ends the guard has.
	Checkpointing(ctx context.Context, c *Container) bool
	// Exited is called when init has died while running, unless the
	// orchestrator had sent it SIGKILL. True: the guard takes the exit, and
	// calls Container.Restore until it succeeds, or Container.ReportExit.
	// False: the exit is published as usual. It must not block.
	Exited(ctx context.Context, c *Container, e Exit) bool
	// Deleted is called when the task is deleted, with its processes and
	// cgroup gone and its root filesystem still mounted. It is also called if
	// the creation fails, even before Prepare. An error is logged.
	Deleted(ctx context.Context, c *Container) error
	// Close releases what the guard holds and waits for its goroutines. When
	// the shim ends in an orderly way it is called without Deleted.
	Close() error
}

// StartFunc makes the processes of a container whose init is dead. CRIU takes
// stdio.Files in the order of descriptors.json, gives a terminal to
// stdio.SetConsole and calls stdio.Settle before the processes run. On an error nothing may be left
// of the container but what it can be called again with.
type StartFunc func(ctx context.Context, stdio *Stdio) (pid int, err error)

// GuardFactory makes the guard of a new container, before anything else is
// done for it. It returns nil for a container that needs none.
//
// An error fails the creation; it is for requests that must be refused, such
// as malformed annotations. Its errdefs class reaches the client.
type GuardFactory func(ctx context.Context, c *Container) (Guard, error)
