package main

import (
	"errors"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/oci"
)

// Exit codes. They are part of the interface: scripts rely on them.
const (
	exitOK          = 0
	exitTornTail    = 1 // the journal's last write was interrupted; recoverable
	exitCorrupt     = 2 // committed data is damaged or missing
	exitUnsupported = 3 // the journal or image has a version that this build can't read
	exitFailure     = 4 // anything else: usage, permissions, no journal
	exitNoKey       = 5 // the journal is encrypted with a key that was not given
)

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, journal.ErrTornTail):
		return exitTornTail
	case errors.Is(err, journal.ErrCorrupt), errors.Is(err, oci.ErrCorrupt), errors.Is(err, oci.ErrIncomplete):
		return exitCorrupt
	case errors.Is(err, journal.ErrUnsupportedVersion), errors.Is(err, oci.ErrUnsupportedVersion), errors.Is(err, oci.ErrNotCheckpoint):
		return exitUnsupported
	case errors.Is(err, journal.ErrNoKey), errors.Is(err, journal.ErrWrongKey):
		return exitNoKey
	}
	return exitFailure
}
