package journal

import (
	"crypto/rand"
	"errors"
	"path/filepath"

	"github.com/crsc-io/crsc/internal/vfs"
)

// createSegment begins a new active segment at position base. The header is
// durable, in the class of the journal, before any record follows: a segment
// without a header therefore has nothing that was committed. On failure the
// old segment stays active and the next try uses the same number.
func (j *Journal) createSegment(base Position) error {
	h := header{
		journal: j.id,
		seq:     j.seq + 1,
		base:    base,
		created: j.opts.Now().UnixNano(),
		class:   j.opts.Durability,
		version: formatVersion,
	}
	cipher, err := j.encrypt(&h)
	if err != nil {
		return err
	}
	path := filepath.Join(j.opts.Dir, segmentName(h.seq))
	f, err := j.newSegmentFile(path)
	if err != nil {
		return err
	}
	if err := j.initSegment(f, h); err != nil {
		// The name may stay behind if this fails too: it counts as unfinished.
		return errors.Join(err, f.Close(), j.opts.FS.Remove(path))
	}
	j.seq = h.seq
	j.active = activeSegment{file: f, path: path, salt: h.salt(), cipher: cipher, off: headerSize}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = append(j.segments, segment{header: h, path: path, end: base, size: j.opts.SegmentBytes})
	return nil
}

// encrypt completes the header of a new segment. It returns the segment's cipher,
// or nil if the journal has no key.
func (j *Journal) encrypt(h *header) (*recordCipher, error) {
	if j.opts.Key == nil {
		return nil, nil
	}
	h.cipher = cipherAES
	if _, err := rand.Read(h.keySalt[:]); err != nil {
		return nil, err
	}
	var err error
	if h.keyID, err = j.opts.Key.id(); err != nil {
		return nil, err
	}
	return h.records(j.opts.Key)
}

// newSegmentFile makes the file, out of a spare one if there is any.
func (j *Journal) newSegmentFile(path string) (vfs.File, error) {
	j.mu.Lock()
	spare := ""
	if n := len(j.spares); n > 0 {
		spare, j.spares = j.spares[n-1], j.spares[:n-1]
	}
	j.mu.Unlock()
	if spare == "" {
		return j.opts.FS.Create(path)
	}
	if err := j.opts.FS.Rename(spare, path); err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.spares = append(j.spares, spare)
		return nil, err
	}
	return j.opts.FS.OpenWrite(path)
}

func (j *Journal) initSegment(f vfs.File, h header) error {
	if err := f.Preallocate(j.opts.SegmentBytes); err != nil {
		return err
	}
	if _, err := f.WriteAt(append(h.encode(), endMark...), 0); err != nil {
		return err
	}
	if j.opts.Durability != Disk {
		return nil
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return j.opts.FS.SyncDir(j.opts.Dir)
}
