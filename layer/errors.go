package layer

import (
	"errors"
	"fmt"
)

var (
	// ErrLimit is returned by Capture when the tree exceeds Limits, or is
	// deeper or has more metadata than a snapshot can hold.
	ErrLimit = errors.New("tree exceeds a limit")

	// ErrChanged is returned by Capture when a file changed while it was being
	// copied: the tasks were not frozen.
	ErrChanged = errors.New("tree changed while it was captured")

	// ErrNoSnapshot is returned when a directory holds no complete snapshot.
	ErrNoSnapshot = errors.New("no snapshot here")

	// ErrUnsafeDir is returned when a snapshot directory belongs to another
	// user or is accessible to others.
	ErrUnsafeDir = errors.New("snapshot directory is not private")

	// ErrCorrupt is matched by the *CorruptionError that is returned when a
	// snapshot is damaged.
	ErrCorrupt = errors.New("snapshot is corrupt")

	// ErrUnsupportedVersion is returned for a snapshot in a format that this
	// build can't read.
	ErrUnsupportedVersion = errors.New("unsupported snapshot version")

	// ErrNotDurable is returned for a snapshot that was made before the host
	// last booted and had not been through Sync: its data may be lost.
	ErrNotDurable = errors.New("snapshot was not synced before the host stopped")

	// ErrNoLayer is returned by WriteTar for a file whose contents overlayfs has
	// left at another path of a layer below, which an OCI layer can't say.
	ErrNoLayer = errors.New("moved within the layers below, as the mount options redirect_dir and metacopy of overlayfs allow")

	// ErrOwner is returned by RollbackAs for a snapshot that names an owner of whom
	// is not known who takes his place.
	ErrOwner = errors.New("nobody takes the place of an owner")

	// errDiffers ends the walk of Same.
	errDiffers = errors.New("tree differs from the snapshot")
)

// CorruptionError says where a snapshot is damaged.
type CorruptionError struct {
	File   string // name in the snapshot directory
	Offset int64  // bytes from the start of File
	Reason string
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("%s: offset %d: corrupt: %s", e.File, e.Offset, e.Reason)
}

// Is matches ErrCorrupt.
func (e *CorruptionError) Is(target error) bool { return target == ErrCorrupt }
