package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/crsc-io/crsc/internal/vfs"
)

// MaxPayload is the longest payload of a record, in bytes. Longer input is
// split by the caller.
const MaxPayload = 1 << 20

const (
	defaultSegmentBytes = 16 << 20
	minSegmentBytes     = 4 << 10
	maxSegmentBytes     = 1 << 30
	defaultRecycle      = 2
	defaultMaxBytes     = 1 << 30
	defaultMemoryBytes  = 2 << 20
	defaultMaxBatch     = 64 << 20
)

// Options configure a journal. Only Dir is needed.
type Options struct {
	// Dir holds the segments and nothing else. It is made if missing.
	Dir string

	// FS is where Dir is; the machine's file system by default.
	FS vfs.FS

	// SegmentBytes is the size of a segment file; 16 MiB by default.
	SegmentBytes int64

	// Durability is the class that Commit guarantees; PageCache by default.
	Durability Durability

	// RecycleSegments is how many trimmed segment files are kept for reuse:
	// 0 means 2, negative means none. Overwriting blocks that were written
	// before makes fdatasync several times cheaper than filling new ones.
	RecycleSegments int

	// MaxBytes bounds the records on disk, between the start of the oldest
	// segment and the end, in bytes; 1 GiB by default. See ErrFull. Up to
	// RecycleSegments+1 segment files come on top.
	MaxBytes int64

	// MemoryBytes is how much the Memory class holds before it writes to the
	// page cache, in bytes; 2 MiB by default: a spill takes about a millisecond.
	MemoryBytes int

	// Key encrypts what is written; nil: it is in the clear. The Memory class
	// holds in the clear what it has not written yet.
	Key *Key

	// MaxBatchBytes bounds the batch between commits, and so the memory used
	// while the journal can't be written; 64 MiB by default. See ErrBatchFull.
	MaxBatchBytes int

	// Now is the clock that stamps batches; time.Now by default. It is called in
	// two goroutines.
	Now func() time.Time
}

// defaultsAndValidate returns a complete copy of o.
func (o Options) defaultsAndValidate() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("journal: Dir is empty")
	}
	o.Dir = filepath.Clean(o.Dir)
	if o.FS == nil {
		o.FS = vfs.OS()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.Durability, PageCache)
	setDefault(&o.SegmentBytes, defaultSegmentBytes)
	setDefault(&o.RecycleSegments, defaultRecycle)
	setDefault(&o.MaxBytes, max(defaultMaxBytes, 4*o.SegmentBytes))
	setDefault(&o.MemoryBytes, defaultMemoryBytes)
	setDefault(&o.MaxBatchBytes, max(defaultMaxBatch, 2*o.MemoryBytes))
	o.RecycleSegments = max(o.RecycleSegments, 0)
	minBatch := 2 * MaxPayload
	if o.Durability == Memory {
		minBatch += o.MemoryBytes
	}
	switch {
	case o.Durability < Memory || o.Durability > Disk:
		return o, fmt.Errorf("journal: unknown %v", o.Durability)
	case o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes:
		return o, fmt.Errorf("journal: SegmentBytes %d: want %d to %d", o.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	case o.MaxBytes < 2*o.SegmentBytes:
		return o, fmt.Errorf("journal: MaxBytes %d: want at least two segments (%d)", o.MaxBytes, 2*o.SegmentBytes)
	case o.MemoryBytes < 0:
		return o, fmt.Errorf("journal: MemoryBytes %d is negative", o.MemoryBytes)
	case o.MaxBatchBytes < minBatch:
		return o, fmt.Errorf("journal: MaxBatchBytes %d: want at least %d", o.MaxBatchBytes, minBatch)
	}
	return o, nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
