package sockdiag

import "errors"

var (
	// ErrNotFound is returned by Lookup and Destroy when no socket has the tuple.
	ErrNotFound = errors.New("no such socket")
	// ErrProtocol is returned when the kernel's answer cannot be parsed.
	ErrProtocol = errors.New("malformed sock_diag answer")
)
