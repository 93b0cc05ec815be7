package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/crsc-io/crsc/internal/vfs"
)

// Reader returns records in order. It belongs to one goroutine.
type Reader struct {
	layout *layout
	next   int      // index of the segment after the current one
	seg    *segment // current; nil before the first
	file   vfs.File // of seg
	win    window   // over file
	key    *Key     // for encrypted segments
	cipher *recordCipher
	plain  []byte // what it decrypted last
	// mayBeSealed: without a key bodies are not looked at; sealed: those of this
	// segment are not.
	mayBeSealed, sealed bool
	pos                 Position   // of the next record
	bound               Position   // where to stop; 0: wherever the records do
	time                time.Time  // of the current batch
	err                 error      // what Next returns from now on
	skip                Position   // records before it are not returned
	sought              bool       // pos was given by the caller and is not yet proven
	owner               *Journal   // whose segments are pinned; nil offline
	memory              memoryTail // what is not in the segments yet
}

// memoryTail is a copy of committed frames that are not in a segment yet.
type memoryTail struct {
	base   Position
	frames []byte
}

// OpenReader reads the journal in dir without changing anything, also while
// another process writes it. A nil fsys is the machine's file system. Records
// that start before from are skipped. key is for encrypted segments, without which
// Next returns ErrNoKey or ErrWrongKey there. At the end of the journal Next returns
// io.EOF, or a *TornTailError if the last write was interrupted (or is just being
// made).
func OpenReader(fsys vfs.FS, dir string, from Position, key *Key) (*Reader, error) {
	if fsys == nil {
		fsys = vfs.OS()
	}
	l, err := inspect(fsys, dir)
	if err != nil {
		return nil, err
	}
	if len(l.segments) == 0 && l.unfinished == "" {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoJournal)
	}
	return l.reader(from, key), nil
}

// reader returns a Reader of everything in the layout, from the segment that
// holds the given position on.
func (l *layout) reader(from Position, key *Key) *Reader {
	r := &Reader{layout: l, skip: from, pos: firstPosition, key: key}
	if len(l.segments) == 0 {
		r.err = io.EOF
		if l.unfinished != "" {
			r.err = &TornTailError{File: l.unfinished, Position: r.pos, Reason: "segment header was not written"}
		}
		return r
	}
	for r.next+1 < len(l.segments) && l.segments[r.next+1].base <= from {
		r.next++
	}
	r.pos = l.segments[r.next].base
	return r
}

// Next sets rec to the next record. It returns io.EOF at the end, and the same
// error again after any error. rec.Payload is valid until the next call.
func (r *Reader) Next(rec *Record) error {
	for r.err == nil {
		if done, err := r.step(rec); err != nil {
			r.fail(err)
		} else if done && rec.Position >= r.skip {
			return nil
		}
	}
	return r.err
}

// Position returns where the next record starts; after io.EOF or a
// *TornTailError, where the journal ends.
func (r *Reader) Position() Position { return r.pos }

// Close releases the segments. It is implied by any error of Next.
func (r *Reader) Close() error {
	if r.err == nil {
		r.fail(ErrClosed)
	}
	return nil
}

func (r *Reader) fail(err error) {
	if errors.Is(err, fs.ErrNotExist) && r.owner == nil {
		err = fmt.Errorf("%w: %w", ErrTrimmed, err)
	}
	r.err = err
	r.closeFile()
	if r.owner != nil {
		r.owner.unpin(r)
	}
}

func (r *Reader) closeFile() {
	if r.file != nil {
		_ = r.file.Close() // read only: nothing to lose
		r.file = nil
	}
}

// step reads one frame. It returns true when rec was set.
func (r *Reader) step(rec *Record) (bool, error) {
	if r.bound != 0 && r.pos >= r.bound {
		return false, io.EOF
	}
	if r.memory.frames != nil && r.pos >= r.memory.base {
		return r.stepMemory(rec)
	}
	if r.seg == nil || r.seg.end != 0 && r.pos >= r.seg.end {
		return false, r.nextSegment()
	}
	fr, err := readFrame(&r.win, &r.seg.header, r.seg.offset(r.pos), r.pos)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", r.seg.path, err)
	}
	if fr.state != frameGood {
		return false, r.badFrame(fr)
	}
	if r.seg.end != 0 && r.pos+Position(fr.size) > r.seg.end {
		return false, r.corrupt("record reaches beyond the end of the segment")
	}
	r.sought = false
	if r.cipher != nil {
		r.plain, err = r.cipher.open(r.plain[:0], r.pos, fr)
		if err != nil {
			return false, r.corrupt("record is not what was encrypted here")
		}
		fr.body = r.plain
	}
	return r.accept(rec, fr)
}

func (r *Reader) stepMemory(rec *Record) (bool, error) {
	b := r.memory.frames[r.pos-r.memory.base:]
	size := frameSize + frameLength(b)
	return r.accept(rec, frame{kind: Type(b[7]), body: b[frameSize : size-r.owner.overhead], size: int64(size)})
}

// accept takes a good frame: a commit record for its time, others into rec.
func (r *Reader) accept(rec *Record, fr frame) (bool, error) {
	if r.sealed {
		rec.Position = r.pos
		r.pos += Position(fr.size)
		return fr.kind != typeCommit, nil
	}
	if fr.kind == typeCommit {
		f := fields{b: fr.body}
		nanos := int64(f.uint64())
		if f.bad || len(f.b) > 0 {
			return false, r.corrupt("malformed commit record")
		}
		r.time = time.Unix(0, nanos)
		r.pos += Position(fr.size)
		return false, nil
	}
	end := r.pos + Position(fr.size)
	*rec = Record{Position: r.pos, End: end, Time: r.time, Type: fr.kind}
	if reason := decode(rec, fr.body); reason != "" {
		return false, r.corrupt(reason)
	}
	r.pos = end
	return true, nil
}

func (r *Reader) nextSegment() error {
	if r.next >= len(r.layout.segments) {
		return io.EOF
	}
	r.closeFile()
	seg := &r.layout.segments[r.next]
	r.next++
	f, err := r.layout.fs.Open(seg.path)
	if err != nil {
		return err
	}
	r.seg, r.file = seg, f
	r.cipher, err = seg.records(r.key)
	if r.sealed = r.mayBeSealed && errors.Is(err, ErrNoKey); err != nil && !r.sealed {
		return fmt.Errorf("%s: %w", seg.path, err)
	}
	r.win.reset(f)
	if r.owner != nil {
		r.owner.pin(r, seg.base)
	}
	return nil
}

func (r *Reader) corrupt(reason string) error {
	return &CorruptionError{File: r.seg.path, Offset: r.seg.offset(r.pos), Reason: reason}
}

// badFrame says what it means that no good record stands at r.pos.
func (r *Reader) badFrame(fr frame) error {
	if r.sought {
		if err := r.checkSought(); err != nil {
			return err
		}
	}
	if fr.state == frameEnd {
		fr.reason = "records are missing"
	}
	if r.bound != 0 {
		return r.corrupt(fr.reason)
	}
	var err error
	if r.seg.end != 0 {
		err = r.corrupt(fr.reason + ", and another segment follows")
	} else {
		err = r.classifyTail(r.seg, r.pos, fr)
	}
	if again, changed := r.recheck(); again || changed != nil {
		return changed
	}
	if err == nil {
		return io.EOF
	}
	return err
}

// recheck looks again at a place that was bad: a writer in another process may
// have been writing it, or have trimmed the segment and begun it anew.
func (r *Reader) recheck() (good bool, err error) {
	r.win.reset(r.file)
	h, err := readHeader(r.layout.fs, r.seg.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && h != r.seg.header {
		return false, fmt.Errorf("%s: %w", r.seg.path, ErrTrimmed)
	}
	fr, err := readFrame(&r.win, &r.seg.header, r.seg.offset(r.pos), r.pos)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", r.seg.path, err)
	}
	return fr.state == frameGood, nil
}

// checkSought walks from the start of the segment and returns ErrPosition if
// no record starts at r.pos.
func (r *Reader) checkSought() error {
	pos := r.seg.base
	for pos < r.pos {
		fr, err := readFrame(&r.win, &r.seg.header, r.seg.offset(pos), pos)
		if err != nil {
			return fmt.Errorf("read %s: %w", r.seg.path, err)
		}
		if fr.state != frameGood {
			return &CorruptionError{File: r.seg.path, Offset: r.seg.offset(pos), Reason: "unreadable before the wanted position"}
		}
		pos += Position(fr.size)
	}
	if pos > r.pos {
		return fmt.Errorf("position %d: %w", r.pos, ErrPosition)
	}
	return nil
}
