package lifecycle

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// Errors of this package. Each wraps the errdefs class that containerd's
// clients look for, so that the task service can map them in one place.
var (
	// ErrNoContainer is returned when the container does not exist or was deleted.
	ErrNoContainer = fmt.Errorf("container not created: %w", errdefs.ErrNotFound)
	// ErrContainerExists is returned by Create when the ID is taken.
	ErrContainerExists = fmt.Errorf("container: %w", errdefs.ErrAlreadyExists)
	// ErrNoProcess is returned when the container has no exec of that ID.
	ErrNoProcess = fmt.Errorf("process does not exist: %w", errdefs.ErrNotFound)
	// ErrProcessExists is returned by Exec when the exec ID is taken.
	ErrProcessExists = fmt.Errorf("process: %w", errdefs.ErrAlreadyExists)
	// ErrFinished is returned by Kill when the process has exited already.
	ErrFinished = fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	// ErrTransition is returned when the process is in the wrong phase for
	// the operation; the message names both.
	ErrTransition = fmt.Errorf("invalid state: %w", errdefs.ErrFailedPrecondition)
	// ErrInitGone is returned by the start of an exec when init has exited.
	ErrInitGone = fmt.Errorf("init process is not running: %w", errdefs.ErrFailedPrecondition)
	// ErrNoCgroup is returned by Stats when the container has no cgroup (yet).
	ErrNoCgroup = fmt.Errorf("cgroup does not exist: %w", errdefs.ErrNotFound)
	// ErrOptions is returned by Create for runtime options that can't be read.
	ErrOptions = fmt.Errorf("runtime options: %w", errdefs.ErrInvalidArgument)
	// ErrUnknownOptions is the ErrOptions of a type that is not known.
	ErrUnknownOptions = fmt.Errorf("unknown type: %w", ErrOptions)
	// ErrNotRecovering is returned by Restore when no exit is being withheld.
	ErrNotRecovering = fmt.Errorf("no recovery under way: %w", errdefs.ErrFailedPrecondition)
	// ErrKilled is returned by Restore when a SIGKILL from the orchestrator
	// ended the recovery. The exit has been reported; nothing is left to do.
	ErrKilled = fmt.Errorf("killed during recovery: %w", errdefs.ErrAborted)
	// ErrRefused is returned by a guard for a container that must not run at all
	// unless it runs as it was asked for.
	ErrRefused = fmt.Errorf("refused: %w", errdefs.ErrFailedPrecondition)
)
