package node

import "errors"

var (
	// ErrConfig is returned when containerd's configuration can't be extended
	// without a risk for what it says now. The node is as it was.
	ErrConfig = errors.New("containerd's configuration")
	// ErrStateDir is returned when the node file has another state_dir than the
	// one that others look into.
	ErrStateDir = errors.New("two directories for the state")
	// ErrInUse is returned while containers of the node run with our shim.
	ErrInUse = errors.New("pods of the node use it")
	// ErrRestart is returned when containerd does not come back, or can't be
	// restarted from here.
	ErrRestart = errors.New("restart of containerd")
)
