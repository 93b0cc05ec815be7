package recovery

import "errors"

var (
	// ErrUnprotected is wrapped by the reason why a container can't be
	// protected. The container runs all the same.
	ErrUnprotected = errors.New("unprotected")
	// ErrNoCheckpoint is returned when a recovery finds nothing to begin with.
	ErrNoCheckpoint = errors.New("no usable checkpoint, and the journal does not reach back to the start")
	// ErrBudget is returned when the container has crashed too often.
	ErrBudget = errors.New("recovery budget exhausted")
	// ErrDiedAgain is why a way of recovery failed in which the restored
	// application ended by itself.
	ErrDiedAgain = errors.New("the restored application ended again")
	// ErrBusy is returned when a checkpoint is asked for in the wrong moment:
	// during a recovery, a pause or another checkpoint.
	ErrBusy = errors.New("the container can't be checkpointed now")
	// ErrStopped ends what is under way when the container is to be gone.
	ErrStopped = errors.New("the container is being stopped")
)
