package lifecycle

import (
	"bytes"
	"sync"
)

// Swallow is output that is to be dropped because it was written before: that
// many whole lines, then that many bytes of a last, unfinished line. Lines, not
// bytes, are counted, because a line that is written again may differ in length
// (a timestamp, say).
type Swallow struct {
	Newlines int64
	Bytes    int64
}

// Empty says that nothing is left to drop.
func (s Swallow) Empty() bool { return s == Swallow{} }

// drop takes what it may from the front of b and returns the rest. The
// newline that ends a line before all Bytes were seen is not dropped: it had
// not been written yet.
func (s *Swallow) drop(b []byte) []byte {
	for s.Newlines > 0 && len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return nil
		}
		s.Newlines--
		b = b[i+1:]
	}
	if s.Newlines > 0 || s.Bytes == 0 || len(b) == 0 {
		return b
	}
	n := min(s.Bytes, int64(len(b)))
	if i := bytes.IndexByte(b[:n], '\n'); i >= 0 {
		s.Bytes = 0
		return b[i:]
	}
	s.Bytes -= n
	return b[n:]
}

// add counts written output on top of s.
func (s *Swallow) add(b []byte) {
	last := bytes.LastIndexByte(b, '\n')
	if last < 0 {
		s.Bytes += int64(len(b))
		return
	}
	s.Newlines += int64(bytes.Count(b, []byte{'\n'}))
	s.Bytes = int64(len(b) - last - 1)
}

// meter counts one output stream of a container across its restores, and
// drops what was written before. The zero meter is ready.
type meter struct {
	// mu guards all fields. A read from the pipe and its accounting happen
	// under it, so that total plus the bytes in the pipe is always what the
	// container has written.
	mu    sync.Mutex
	total int64 // bytes taken from pipes
	skip  Swallow
	marks []*meterMark
}

// meterMark is a position of the stream. Until the copying has come to it,
// since is not known.
type meterMark struct {
	meter  *meter
	offset int64
	active bool
	// since is what has been written from offset on, including what had been
	// written there before a restore and is being swallowed.
	since Swallow
}

// markLocked remembers the position that lies pending bytes (those still in the
// pipe) ahead.
func (m *meter) markLocked(pending int64) *meterMark {
	k := &meterMark{meter: m, offset: m.total + pending}
	m.marks = append(m.marks, k)
	if pending == 0 {
		m.activateLocked()
	}
	return k
}

// release forgets k.
func (k *meterMark) release() {
	m := k.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, other := range m.marks {
		if other == k {
			m.marks = append(m.marks[:i], m.marks[i+1:]...)
			return
		}
	}
}

// rewind makes the meter drop what has been written since k. The old pipe must
// have been copied to its end.
func (m *meter) rewind(k *meterMark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !k.active {
		// The container ended short of the position: bytes were lost with its
		// pipe, so nothing after it can have been written.
		k.active, k.offset = true, m.total
	}
	m.skip = k.since
}

// giveUp lets everything pass from here on: it is an answer to new input, not what
// was written before.
func (m *meter) giveUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.skip = Swallow{}
}

// filterLocked accounts for b, read from the pipe, and returns what is to be
// written. The result overwrites b.
func (m *meter) filterLocked(b []byte) []byte {
	if m.skip.Empty() && len(m.marks) == 0 {
		m.total += int64(len(b))
		return b
	}
	out := b[:0]
	for len(b) > 0 {
		n := m.untilNextMarkLocked(len(b))
		kept := m.skip.drop(b[:n])
		for _, k := range m.marks {
			if k.active {
				k.since.add(kept)
			}
		}
		m.total += int64(n)
		out = append(out, kept...)
		b = b[n:]
		m.activateLocked()
	}
	return out
}

// untilNextMarkLocked returns how many of the next n bytes come before the
// first position that is still ahead.
func (m *meter) untilNextMarkLocked(n int) int {
	for _, k := range m.marks {
		if ahead := k.offset - m.total; !k.active && ahead < int64(n) {
			n = int(ahead)
		}
	}
	return n
}

// activateLocked starts the count of the marks that have been reached.
func (m *meter) activateLocked() {
	for _, k := range m.marks {
		if !k.active && k.offset <= m.total {
			k.active, k.since = true, m.skip
		}
	}
}
