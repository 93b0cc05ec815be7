package journal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/crsc-io/crsc/internal/vfs"
)

// Journal is an open journal. Append…, Commit, CommitBehind, Heal, End, Pending,
// Close and Destroy belong to one goroutine, the writer; the other methods may be
// called from any.
type Journal struct {
	opts      Options
	id        uint64
	lock      io.Closer
	recovered Survey
	overhead  int // bytes that a record has for its cipher

	// The writer's own state.
	batch   batch
	active  activeSegment
	seq     uint64 // of the newest segment file
	inBatch bool   // a record was appended since the last Commit
	pending uint64 // records appended since the last Commit
	err     error  // sticky failure
	closed  bool   // written under trimMu, too

	// flight is a batch that was handed over for committing. While flying is
	// set it belongs to that goroutine, with active, seq and sealed.
	flight        batch
	flightLen     int    // its size when it was handed over; 0: it is committed
	flightRecords uint64 // in it
	flying        bool
	sealed        []byte     // the encrypted form of a batch, while it is written
	landed        chan error // capacity 1

	// committed is a Position. Written by the writer, read by anyone.
	committed atomic.Uint64

	// mu guards what the writer shares with readers and trimming. It is held
	// for moments only, never during I/O.
	mu       sync.Mutex
	segments []segment // the last one is active
	spares   []string
	memory   memoryTail
	readers  map[*Reader]Position // start of the segment each one reads
	stats    Stats

	// trimMu keeps removals of files in order. It is held during I/O; the
	// writer never takes it but in Close and Destroy.
	trimMu sync.Mutex
}

// activeSegment is the segment that is written to.
type activeSegment struct {
	file vfs.File
	path string
	salt uint64
	off  int64 // where the next record goes

	cipher *recordCipher // nil: in the clear
}

// Open opens the journal in o.Dir, or makes one, ready to append. It reads and
// checks every record; a torn tail is cut and reported by Recovered. Open
// returns a *CorruptionError, a *VersionError, ErrNoKey or ErrWrongKey, having
// changed nothing, when the journal can't be continued; vfs.ErrLocked when another
// process has it.
func Open(o Options) (*Journal, error) {
	o, err := o.defaultsAndValidate()
	if err != nil {
		return nil, err
	}
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	lock, err := o.FS.Lock(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{opts: o, lock: lock, readers: map[*Reader]Position{}, landed: make(chan error, 1)}
	if o.Key != nil {
		j.overhead = tagSize
	}
	if err := j.recover(); err != nil {
		return nil, errors.Join(err, j.release())
	}
	return j, nil
}

// Recovered returns what Open found.
func (j *Journal) Recovered() Survey { return j.recovered }

// End returns the position after the last appended record.
func (j *Journal) End() Position { return j.batch.end() }

// Committed returns the position up to which everything is committed.
func (j *Journal) Committed() Position { return Position(j.committed.Load()) }

// Start returns the position of the oldest segment.
func (j *Journal) Start() Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.segments[0].base
}

// Pending returns the size of what is not committed, or committed to memory
// only, in bytes. It grows while the journal can't be written.
func (j *Journal) Pending() int { return len(j.batch.buf) + j.flightLen }

// MaxBytes is the limit that ErrFull is about, in bytes.
func (j *Journal) MaxBytes() int64 { return j.opts.MaxBytes }

// Err returns the failure that Commit repeats until Heal, or nil.
func (j *Journal) Err() error { return j.err }

// Close commits what is pending, makes it durable and gives unused space back.
// The journal is unusable afterwards, also when an error is returned.
func (j *Journal) Close() error {
	if j.closed {
		return ErrClosed
	}
	err := j.Commit()
	if err == nil {
		err = j.writeOut()
	}
	j.trimMu.Lock()
	defer j.trimMu.Unlock()
	j.closed, j.err = true, ErrClosed
	if err == nil {
		err = errors.Join(j.active.file.Truncate(j.active.off), j.active.file.Sync())
	}
	return errors.Join(err, j.release())
}

// Destroy deletes the journal with its directory, without committing anything.
// Readers must have been closed.
func (j *Journal) Destroy() error {
	if j.closed {
		return ErrClosed
	}
	j.land(true)
	j.trimMu.Lock()
	defer j.trimMu.Unlock()
	j.closed, j.err = true, ErrClosed
	j.mu.Lock()
	paths := append([]string(nil), j.spares...)
	for _, s := range j.segments {
		paths = append(paths, s.path)
	}
	j.mu.Unlock()
	var errs []error
	for _, path := range paths {
		errs = append(errs, j.opts.FS.Remove(path))
	}
	errs = append(errs, j.opts.FS.Remove(j.opts.Dir), j.opts.FS.SyncDir(filepath.Dir(j.opts.Dir)), j.release())
	return errors.Join(errs...)
}

// release closes the active segment and gives the directory free.
func (j *Journal) release() error {
	var err error
	if j.active.file != nil {
		err = j.active.file.Close()
	}
	return errors.Join(err, j.lock.Close())
}
