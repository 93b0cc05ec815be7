package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/crsc-io/crsc/internal/vfs"
)

// Survey is what reading a whole journal found.
type Survey struct {
	Segments int
	Records  uint64
	Start    Position // of the oldest segment
	End      Position // after the last good record
	// Sealed: some of the records are encrypted and there was no key, so that
	// only their checksums were looked at.
	Sealed bool
	// Torn says where the last write was interrupted; nil after a clean end.
	Torn *TornTailError
}

// Verify reads and checks every record of the journal in dir, changing
// nothing (fsys and key as for OpenReader). Without a key only the checksums of
// encrypted records are checked. The error is nil, a *TornTailError (in Survey.Torn
// too), a *CorruptionError, a *VersionError, ErrWrongKey, or says why the journal
// can't be read; the Survey covers what was read before it.
func Verify(fsys vfs.FS, dir string, key *Key) (Survey, error) {
	r, err := OpenReader(fsys, dir, 0, key)
	if err != nil {
		return Survey{}, err
	}
	r.mayBeSealed = true
	s, err := r.survey()
	if err == nil && s.Torn != nil {
		err = s.Torn
	}
	return s, err
}

// survey reads to the end. A torn tail is not an error here.
func (r *Reader) survey() (Survey, error) {
	s := Survey{Segments: len(r.layout.segments), Start: r.pos}
	var rec Record
	var err error
	for err = r.Next(&rec); err == nil; err = r.Next(&rec) {
		s.Records++
		s.Sealed = s.Sealed || r.sealed
	}
	s.End = r.pos
	if errors.As(err, &s.Torn) || err == io.EOF {
		err = nil
	}
	return s, err
}

// recover checks what is in the directory, cuts a torn tail and begins a new
// segment. Nothing is changed before everything has been checked.
func (j *Journal) recover() error {
	l, err := inspect(j.opts.FS, j.opts.Dir)
	if err != nil {
		return err
	}
	if j.recovered, err = l.reader(0, j.opts.Key).survey(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := j.adopt(l); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.batch.base = j.recovered.End
	j.committed.Store(uint64(j.batch.base))
	if err := j.createSegment(j.batch.base); err != nil {
		return fmt.Errorf("journal: new segment: %w", err)
	}
	// An empty segment, of a journal that was opened and not written to, has
	// served: the new one starts at the same position.
	if n := len(j.segments); n > 1 && j.segments[n-2].base == j.batch.base {
		empty := j.segments[n-2]
		if err := j.opts.FS.Remove(empty.path); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		j.segments = append(j.segments[:n-2], j.segments[n-1])
	}
	return nil
}

// adopt takes over the files of the layout, which ends at j.recovered.End.
func (j *Journal) adopt(l *layout) error {
	if l.unfinished != "" {
		if err := j.opts.FS.Remove(l.unfinished); err != nil {
			return err
		}
	}
	if len(l.segments) == 0 {
		var id [8]byte
		if _, err := rand.Read(id[:]); err != nil {
			return err
		}
		j.id = binary.LittleEndian.Uint64(id[:])
		if j.opts.Durability == Disk {
			return j.opts.FS.SyncDir(filepath.Dir(j.opts.Dir))
		}
		return nil
	}
	last := &l.segments[len(l.segments)-1]
	last.end = j.recovered.End
	j.id, j.seq, j.segments = last.journal, last.seq, l.segments
	for i := range j.segments {
		if err := j.adoptSegment(&j.segments[i], i == len(l.segments)-1); err != nil {
			return err
		}
	}
	return j.adoptSpares(l.spares)
}

// adoptSegment notes the size of a segment file and, of the last, cuts what is
// behind the end. Segments of a lower class are made as durable as the new.
func (j *Journal) adoptSegment(s *segment, last bool) (err error) {
	raise := j.opts.Durability == Disk && (last || s.class != Disk)
	open := j.opts.FS.Open
	if last || raise {
		open = j.opts.FS.OpenWrite
	}
	f, err := open(s.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if s.size, err = f.Size(); err != nil {
		return err
	}
	if end := s.offset(s.end); last && s.size != end {
		if err := f.Truncate(end); err != nil {
			return err
		}
		s.size = end
	}
	if raise {
		return f.Sync()
	}
	return nil
}

// adoptSpares keeps the files that can be used again and removes the others.
func (j *Journal) adoptSpares(paths []string) error {
	for _, path := range paths {
		keep := len(j.spares) < j.opts.RecycleSegments
		if keep {
			f, err := j.opts.FS.Open(path)
			if err != nil {
				return err
			}
			size, err := f.Size()
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
			keep = size == j.opts.SegmentBytes
		}
		if keep {
			j.spares = append(j.spares, path)
		} else if err := j.opts.FS.Remove(path); err != nil {
			return err
		}
	}
	return nil
}
