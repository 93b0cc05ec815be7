package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/crsc-io/crsc/internal/vfs"
)

// segment is a segment file with a valid header. It is immutable but for end.
type segment struct {
	header
	path string
	end  Position // where it ends; 0: wherever its records do
	size int64    // bytes allocated; known for our own segments only
}

// offset returns where in the file a position of the segment is.
func (s *segment) offset(p Position) int64 { return s.encodedSize() + int64(p-s.base) }

// layout is what stands in a journal's directory, by names and headers only.
type layout struct {
	fs       vfs.FS
	dir      string
	segments []segment // in order of position
	spares   []string  // paths of files kept for reuse
	// unfinished is the path of a last segment whose header is not there: its
	// creation was interrupted. Empty if there is none.
	unfinished    string
	unfinishedSeq uint64
}

// inspect reads the names and headers in dir. It changes nothing.
func inspect(fsys vfs.FS, dir string) (*layout, error) {
	// A writer may trim and recycle a file between the listing and the
	// reading of its header: a new listing then no longer has the name. What
	// is really damaged is so each time.
	const tries = 4
	for try := 1; ; try++ {
		l, err := inspectOnce(fsys, dir)
		if try < tries && (errors.Is(err, ErrTrimmed) || errors.Is(err, ErrCorrupt)) {
			continue
		}
		return l, err
	}
}

func inspectOnce(fsys vfs.FS, dir string) (*layout, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	l := &layout{fs: fsys, dir: dir}
	var seqs []uint64
	for _, name := range names {
		if seq, ok := parseName(name, segmentSuffix); ok {
			seqs = append(seqs, seq)
		} else if _, ok := parseName(name, spareSuffix); ok {
			l.spares = append(l.spares, filepath.Join(dir, name))
		}
	}
	// Names are fixed-width hexadecimal: List sorted them by number.
	for i, seq := range seqs {
		if err := l.add(seq, i == len(seqs)-1); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// add reads the header of one more segment and checks that it follows.
func (l *layout) add(seq uint64, last bool) error {
	path := filepath.Join(l.dir, segmentName(seq))
	h, err := readHeader(l.fs, path)
	var ioErr *ioError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", path, ErrTrimmed)
	case errors.Is(err, ErrUnsupportedVersion):
		return err
	case errors.As(err, &ioErr):
		return fmt.Errorf("journal: %w", err)
	case err == nil && h.seq != seq:
		err = fmt.Errorf("segment header: number %d under this name", h.seq)
	}
	if err != nil {
		// The header is made durable before records follow, so the last
		// file may lack it, or still have that of its previous life. A
		// directory with nothing else in it proves nothing but a blank file.
		if last && (len(l.segments) > 0 || errors.Is(err, errBlankHeader)) {
			l.unfinished, l.unfinishedSeq = path, seq
			return nil
		}
		return &CorruptionError{File: path, Reason: err.Error()}
	}
	if n := len(l.segments); n > 0 {
		prev := &l.segments[n-1]
		if h.journal != prev.journal {
			return &CorruptionError{File: path, Reason: "segment belongs to another journal"}
		}
		if h.base < prev.base {
			return &CorruptionError{File: path, Reason: "segment starts before the previous one"}
		}
		prev.end = h.base
	}
	l.segments = append(l.segments, segment{header: h, path: path})
	return nil
}
