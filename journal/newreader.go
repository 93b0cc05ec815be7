package journal

import "fmt"

// NewReader returns a Reader of what is committed now, from the record at the
// given position on (Start and Committed are always good; ErrPosition and
// ErrTrimmed say why another is not). It may be used while the writer appends.
// It keeps its segments from being trimmed until it is closed or at its end.
func (j *Journal) NewReader(from Position) (*Reader, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	bound := j.Committed()
	if from < j.segments[0].base {
		return nil, fmt.Errorf("journal: position %d: %w", from, ErrTrimmed)
	}
	if from > bound {
		return nil, fmt.Errorf("journal: position %d, the end is %d: %w", from, bound, ErrPosition)
	}
	memory := memoryTail{base: j.memory.base, frames: append([]byte(nil), j.memory.frames...)}
	if !memory.starts(from) {
		return nil, fmt.Errorf("journal: position %d: %w", from, ErrPosition)
	}
	first := len(j.segments) - 1
	for first > 0 && j.segments[first].base > from {
		first--
	}
	l := &layout{fs: j.opts.FS, dir: j.opts.Dir}
	l.segments = append(l.segments, j.segments[first:]...)
	r := &Reader{layout: l, pos: from, bound: bound, owner: j, key: j.opts.Key, memory: memory, sought: from != l.segments[0].base}
	j.readers[r] = l.segments[0].base
	return r, nil
}

// starts tells whether a record may start at p: if p lies in memory, one must.
func (m memoryTail) starts(p Position) bool {
	pos := m.base
	for rest := m.frames; pos < p && len(rest) > 0; {
		n := frameSize + frameLength(rest)
		pos, rest = pos+Position(n), rest[n:]
	}
	return len(m.frames) == 0 || p <= m.base || pos == p
}

func (j *Journal) pin(r *Reader, base Position) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.readers[r] = base
}

func (j *Journal) unpin(r *Reader) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.readers, r)
}
