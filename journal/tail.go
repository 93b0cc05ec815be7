package journal

import (
	"bytes"
	"errors"
	"io/fs"
)

// classifyTail decides what it means that the last segment has no good record
// at position pos, where it has the frame bad. It returns nil for a clean end,
// a *TornTailError or a *CorruptionError.
//
// Records are written in batches, and a batch only after the one before it was
// committed. So a good commit record further on proves that what is missing
// here had been committed. Within one batch the classes differ: an interrupted
// write(2) leaves a prefix, a disk that lost power any part of it.
func (r *Reader) classifyTail(seg *segment, pos Position, bad frame) error {
	off := seg.offset(pos)
	later, err := r.committedLater(seg, off, pos)
	if err != nil {
		return err
	}
	corrupt := func(reason string) error {
		return &CorruptionError{File: seg.path, Offset: off, Reason: reason}
	}
	if bad.state == frameEnd {
		if later {
			return corrupt("records are missing: committed ones follow")
		}
		return r.classifyUnfinished(seg, pos)
	}
	if later {
		return corrupt(bad.reason + ", and committed records follow")
	}
	if seg.class != Disk && bad.size > 0 {
		next, err := readFrame(&r.win, &seg.header, off+bad.size, pos+Position(bad.size))
		if err != nil {
			return err
		}
		if next.state == frameGood {
			return corrupt(bad.reason + ", and a good record follows")
		}
	}
	if r.stillUnfinished() {
		return corrupt(bad.reason + ", and another segment follows")
	}
	return &TornTailError{File: seg.path, Offset: off, Position: pos, Reason: bad.reason}
}

// committedLater looks for a good commit record behind off.
func (r *Reader) committedLater(seg *segment, off int64, pos Position) (bool, error) {
	const step = windowSize
	from := off + 1
	size := commitFrame + seg.overhead()
	pattern := []byte{byte(commitBody + seg.overhead()), 0, 0, byte(typeCommit)} // length and type
	for {
		// Each step sees a whole frame more, so that none lies across.
		b, err := r.win.bytes(from, step)
		if err != nil {
			return false, err
		}
		for i := 4; ; {
			hit := bytes.Index(b[min(i, len(b)):], pattern)
			if hit < 0 {
				break
			}
			i += hit
			if start := i - 4; start+size <= len(b) {
				at := pos + Position(from+int64(start)-off)
				if crc := checksum(seg.salt(), at, b[i:start+size]); crc == le32(b[start:]) {
					return true, nil
				}
			}
			i++
		}
		if len(b) < step {
			return false, nil
		}
		from += int64(step - size + 1)
	}
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// classifyUnfinished looks whether a following file without a good header has
// records: then the header was damaged, since it is written first.
func (r *Reader) classifyUnfinished(last *segment, end Position) error {
	if r.layout.unfinished == "" {
		return nil
	}
	f, err := r.layout.fs.Open(r.layout.unfinished)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	w := window{file: f}
	for _, h := range []header{{version: 1}, {version: formatVersion, cipher: cipherAES}} { // the longest that may be
		h.journal, h.seq = last.journal, r.layout.unfinishedSeq
		got, err := readFrame(&w, &h, h.encodedSize(), end)
		if err != nil {
			return err
		}
		if got.state == frameGood && r.stillUnfinished() {
			return &CorruptionError{File: r.layout.unfinished, Reason: "bad segment header, and records follow"}
		}
	}
	return nil
}

// stillUnfinished tells whether there is a last segment without a good header.
// A writer in another process may have completed it since it was inspected.
func (r *Reader) stillUnfinished() bool {
	if r.layout.unfinished == "" {
		return false
	}
	h, err := readHeader(r.layout.fs, r.layout.unfinished)
	return !errors.Is(err, fs.ErrNotExist) && (err != nil || h.seq != r.layout.unfinishedSeq)
}
