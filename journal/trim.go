package journal

import (
	"fmt"
	"path/filepath"
)

// TrimBefore drops the segments that end before or at p, oldest first; their
// files are kept for reuse or removed. Segments that a Reader has still to
// read stay, until the first TrimBefore after it is closed. The active segment
// stays always. p must not lie beyond Committed (ErrPosition).
func (j *Journal) TrimBefore(p Position) error {
	if p > j.Committed() {
		return fmt.Errorf("journal: trim before %d: %w", p, ErrPosition)
	}
	j.trimMu.Lock()
	defer j.trimMu.Unlock()
	if j.closed {
		return ErrClosed
	}
	trimmed := j.takeTrimmed(p)
	for i := range trimmed {
		if err := j.discard(&trimmed[i]); err != nil {
			j.putBack(trimmed[i:])
			return fmt.Errorf("journal: trim: %w", err)
		}
	}
	if len(trimmed) > 0 && j.opts.Durability == Disk {
		if err := j.opts.FS.SyncDir(j.opts.Dir); err != nil {
			return fmt.Errorf("journal: trim: %w", err)
		}
	}
	return nil
}

// takeTrimmed takes the segments that may go out of the list, so that no new
// Reader finds them.
func (j *Journal) takeTrimmed(p Position) []segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, pinned := range j.readers {
		p = min(p, pinned)
	}
	n := 0
	for n < len(j.segments)-1 && j.segments[n].end <= p {
		n++
	}
	trimmed := append([]segment(nil), j.segments[:n]...)
	j.segments = append([]segment(nil), j.segments[n:]...)
	return trimmed
}

func (j *Journal) putBack(kept []segment) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = append(append([]segment(nil), kept...), j.segments...)
}

// discard recycles or removes the file of one segment.
func (j *Journal) discard(s *segment) error {
	j.mu.Lock()
	recycle := len(j.spares) < j.opts.RecycleSegments && s.size == j.opts.SegmentBytes
	j.mu.Unlock()
	if !recycle {
		return j.opts.FS.Remove(s.path)
	}
	spare := filepath.Join(j.opts.Dir, spareName(s.seq))
	if err := j.opts.FS.Rename(s.path, spare); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spares = append(j.spares, spare)
	return nil
}
