package layer

import "fmt"

const (
	defaultMaxBytes   = 16 << 30
	defaultMaxEntries = 1 << 20

	// maxManifest bounds the memory that names, extended attributes and extent
	// tables of a hostile tree can take, in bytes.
	maxManifest = 256 << 20
	// maxDepth bounds the descriptors that a walk keeps open: one per level.
	maxDepth = 4096
)

// Limits bounds what a capture may take. Zero values mean the default.
type Limits struct {
	MaxBytes   int64 // of file contents, holes not counted; default 16 GiB
	MaxEntries int   // files, directories and so on; default 1 Mi
}

func (l *Limits) defaultsAndValidate() error {
	if l.MaxBytes < 0 || l.MaxEntries < 0 {
		return fmt.Errorf("limits: negative: %d bytes, %d entries", l.MaxBytes, l.MaxEntries)
	}
	if l.MaxBytes == 0 {
		l.MaxBytes = defaultMaxBytes
	}
	if l.MaxEntries == 0 {
		l.MaxEntries = defaultMaxEntries
	}
	return nil
}

// Stats says what a capture or a rollback did.
type Stats struct {
	Entries int   // in the snapshot
	Bytes   int64 // of file contents in the snapshot, holes not counted

	// Copied counts the files whose contents were copied into the snapshot, or
	// written by the rollback, entirely or in part.
	Copied      int
	CopiedBytes int64

	// Created and Removed count what a rollback made anew and deleted;
	// Repaired what it changed in place.
	Created, Removed, Repaired int

	// Mounts counts mount points that were left alone.
	Mounts int

	// Flagged counts entries of the snapshot with the immutable or the
	// append-only attribute.
	Flagged int

	// PrevError says why Capture could not use prev and copied everything.
	PrevError error
}
