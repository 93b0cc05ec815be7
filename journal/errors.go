package journal

import (
	"errors"
	"fmt"
)

var (
	// ErrTornTail is matched by the *TornTailError that readers return, after
	// the last good record, when a crash interrupted the last write. What is
	// missing had not been committed. Open repairs it.
	ErrTornTail = errors.New("torn tail")

	// ErrCorrupt is matched by the *CorruptionError that is returned when
	// committed data is damaged or missing.
	ErrCorrupt = errors.New("journal is corrupt")

	// ErrUnsupportedVersion is matched by the *VersionError that is returned
	// for an intact journal of a format that this build can't read.
	ErrUnsupportedVersion = errors.New("unsupported journal version")

	// ErrNoKey is returned for an encrypted journal without a key.
	ErrNoKey = errors.New("journal is encrypted, and no key was given")

	// ErrWrongKey is returned when a journal is encrypted with another key.
	ErrWrongKey = errors.New("journal is encrypted with another key")

	// ErrNoJournal is returned when a directory to be read has no segments.
	ErrNoJournal = errors.New("no journal here")

	// ErrTrimmed is returned when a position lies before the oldest record,
	// or when another process trimmed a segment while it was being read.
	ErrTrimmed = errors.New("position has been trimmed")

	// ErrPosition is returned for a position at which no committed record
	// starts.
	ErrPosition = errors.New("no record starts at this position")

	// ErrFull is returned by Commit when the journal would exceed MaxBytes.
	// The batch is kept; Commit works again after TrimBefore made room.
	ErrFull = errors.New("journal is full")

	// ErrBatchFull is returned by Commit after records were refused because
	// the batch had reached MaxBatchBytes. It persists until Heal.
	ErrBatchFull = errors.New("journal batch is full")

	// ErrRecordTooLarge is returned by Commit after a record was refused
	// because its payload exceeded MaxPayload. It persists until Heal.
	ErrRecordTooLarge = errors.New("journal record too large")

	// ErrClosed is returned after Close or Destroy.
	ErrClosed = errors.New("journal is closed")
)

// TornTailError says where the journal ends because its last write was
// interrupted.
type TornTailError struct {
	File     string   // path of the segment
	Offset   int64    // bytes from the start of File
	Position Position // the end of what is valid
	Reason   string
}

func (e *TornTailError) Error() string {
	return fmt.Sprintf("%s: offset %d: torn tail: %s", e.File, e.Offset, e.Reason)
}

// Is matches ErrTornTail.
func (e *TornTailError) Is(target error) bool { return target == ErrTornTail }

// CorruptionError says where committed data is damaged.
type CorruptionError struct {
	File   string // path of the segment
	Offset int64  // bytes from the start of File
	Reason string
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("%s: offset %d: corrupt: %s", e.File, e.Offset, e.Reason)
}

// Is matches ErrCorrupt.
func (e *CorruptionError) Is(target error) bool { return target == ErrCorrupt }

// VersionError says which segment has a format that this build can't read.
type VersionError struct {
	File    string // path of the segment
	Version uint16
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s: journal format version %d is not supported: this build reads versions up to %d",
		e.File, e.Version, formatVersion)
}

// Is matches ErrUnsupportedVersion.
func (e *VersionError) Is(target error) bool { return target == ErrUnsupportedVersion }
