package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Renew begins the journal anew, after a fault because of which records are
// missing: everything recorded is given up, committed or not. The directory is
// made again if it has gone. Positions go on. After an error the journal can't be
// committed; Renew may be called again. It fails while a Reader is open.
func (j *Journal) Renew() error {
	if j.closed {
		return ErrClosed
	}
	j.land(true)
	j.trimMu.Lock()
	defer j.trimMu.Unlock()
	paths, spares, err := j.giveUp()
	if err != nil {
		return err
	}
	j.err = errors.New("journal: the attempt to begin it anew failed")
	if err := j.relock(); err != nil {
		return fmt.Errorf("journal: renew: %w", err)
	}
	// Oldest first: no crash leaves a gap. What is gone already is no error.
	for _, path := range append(spares, paths...) {
		if err := j.opts.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("journal: renew: %w", err)
		}
	}
	file := j.active.file
	if err := j.createSegment(j.batch.base); err != nil {
		return fmt.Errorf("journal: renew: new segment: %w", err)
	}
	j.mu.Lock()
	j.segments = j.segments[len(j.segments)-1:]
	j.mu.Unlock()
	j.err = nil
	// The file may lie on a disk that fails; nothing in it counts.
	_ = file.Close()
	return nil
}

// giveUp empties the batches and returns what files there are.
func (j *Journal) giveUp() (segments, spares []string, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.readers) > 0 {
		return nil, nil, fmt.Errorf("journal: renew: %d readers are open", len(j.readers))
	}
	end := j.batch.end()
	j.batch = batch{base: end, buf: j.batch.buf[:0]}
	j.flight.buf, j.flightLen, j.flightRecords = j.flight.buf[:0], 0, 0
	j.pending, j.inBatch, j.memory = 0, false, memoryTail{}
	j.committed.Store(uint64(end))
	for _, s := range j.segments {
		segments = append(segments, s.path)
	}
	spares, j.spares = j.spares, nil
	return segments, spares, nil
}

// relock makes the directory if need be, and takes it: what was locked may have
// been another one.
func (j *Journal) relock() error {
	if err := j.opts.FS.MkdirAll(j.opts.Dir); err != nil {
		return err
	}
	if err := j.lock.Close(); err != nil {
		return err
	}
	lock, err := j.opts.FS.Lock(j.opts.Dir)
	if err != nil {
		j.lock = released{}
		return err
	}
	j.lock = lock
	if j.opts.Durability == Disk {
		return j.opts.FS.SyncDir(filepath.Dir(j.opts.Dir))
	}
	return nil
}

// released is the lock of a journal that has none.
type released struct{}

func (released) Close() error { return nil }
