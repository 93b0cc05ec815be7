package journal

import "fmt"

// endMark follows the last record of a batch, until the next batch overwrites
// it: it tells the end from what a recycled file had there.
var endMark = make([]byte, frameSize)

// Commit makes everything appended so far durable in the class of the journal:
// one write for each segment touched. After an error nothing further is
// acknowledged: Commit returns the same error until Heal. ErrFull alone is not
// kept: the next Commit tries again. In every case the batch is kept, not lost.
func (j *Journal) Commit() error { return j.commit(j.room) }

// CommitBeyond is Commit without regard to MaxBytes: for the few records of a
// checkpoint, after which there will be room again.
func (j *Journal) CommitBeyond() error { return j.commit(func() error { return nil }) }

func (j *Journal) commit(room func() error) error {
	j.land(true)
	if j.err != nil {
		return j.err
	}
	if j.flightLen == 0 && !j.inBatch {
		return nil
	}
	if j.opts.Durability == Memory && len(j.batch.buf) <= j.opts.MemoryBytes {
		j.publish()
		j.batchDone(&j.pending)
		j.inBatch = false
		return nil
	}
	if err := room(); err != nil {
		return err
	}
	return j.writeOut()
}

// Heal forgets the failure and commits the batch again, from the last position
// that is known to be committed. It returns what Commit returns.
func (j *Journal) Heal() error {
	if j.closed {
		return ErrClosed
	}
	j.land(true)
	j.err = nil
	return j.Commit()
}

// writeOut writes what an earlier commit could not, and then the batch: each
// is written only after the one before it was committed.
func (j *Journal) writeOut() error {
	if j.flightLen > 0 {
		if err := j.flush(&j.flight); err != nil {
			j.fail(err)
			return j.err
		}
		j.flightLen = 0
		j.batchDone(&j.flightRecords)
	}
	if len(j.batch.buf) > 0 {
		if err := j.flush(&j.batch); err != nil {
			j.fail(err)
			return j.err
		}
	}
	if j.inBatch {
		j.inBatch = false
		j.batchDone(&j.pending)
	}
	return nil
}

// batchDone takes note of a commit, and resets the number of its records.
func (j *Journal) batchDone(records *uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stats.Commits++
	j.stats.Records += *records
	*records = 0
}

// publish commits the batch to memory: readers see it from now on.
func (j *Journal) publish() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.memory = memoryTail{base: j.batch.base, frames: j.batch.buf}
	j.committed.Store(uint64(j.batch.end()))
}

// room returns ErrFull when the records would exceed MaxBytes on disk.
func (j *Journal) room() error {
	if live := int64(j.batch.end() - j.Start()); live > j.opts.MaxBytes {
		return fmt.Errorf("journal: %d bytes: %w", live, ErrFull)
	}
	return nil
}

// flush writes a batch to segments.
func (j *Journal) flush(b *batch) error {
	for len(b.buf) > 0 {
		empty := j.active.off == headerSize
		n := b.whole(j.opts.SegmentBytes-frameSize-j.active.off, empty)
		var err error
		if n > 0 {
			err = j.writeBatch(b, n)
		} else {
			err = j.roll(b.base)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeBatch writes the first n bytes of the batch to the active segment. If
// it fails, nothing has changed but bytes behind the end, which the next try
// overwrites.
func (j *Journal) writeBatch(b *batch, n int) error {
	write := j.writeClear
	if j.active.cipher != nil {
		write = j.writeEncrypted
	}
	f := j.active.file
	if err := write(b, n); err != nil {
		return err
	}
	if j.opts.Durability == Disk {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	j.written(b, n)
	return nil
}

func (j *Journal) writeClear(b *batch, n int) error {
	last := n == len(b.buf)
	if last {
		b.reserve(frameSize)
	}
	j.mu.Lock() // a reader may be copying what is in memory
	b.seal(j.active.salt, n)
	j.mu.Unlock()
	f, off := j.active.file, j.active.off
	if last {
		_, err := f.WriteAt(append(b.buf, endMark...), off)
		return err
	}
	if _, err := f.WriteAt(b.buf[:n], off); err != nil {
		return err
	}
	_, err := f.WriteAt(endMark, off+int64(n))
	return err
}

// writeEncrypted leaves the batch as it is: another try, maybe in another
// segment, needs it in the clear.
func (j *Journal) writeEncrypted(b *batch, n int) error {
	if need := n + frameSize; cap(j.sealed) < need {
		j.sealed = make([]byte, 0, max(cap(b.buf), need))
	}
	j.sealed = append(b.encrypted(j.sealed[:0], &j.active, n), endMark...)
	_, err := j.active.file.WriteAt(j.sealed, j.active.off)
	if cap(j.sealed) > batchKeepBytes {
		j.sealed = nil
	}
	return err
}

// written takes note that the first n bytes of the batch are in the segment.
func (j *Journal) written(b *batch, n int) {
	j.active.off += int64(n)
	j.mu.Lock()
	defer j.mu.Unlock()
	active := &j.segments[len(j.segments)-1]
	active.end = b.base + Position(n)
	active.size = max(active.size, j.active.off+frameSize)
	j.stats.Writes++
	if j.opts.Durability == Disk {
		j.stats.Syncs++
	}
	b.drop(n)
	if j.memory.frames != nil {
		// What was in memory and is still in the batch stays visible there.
		keep := int64(j.committed.Load()) - int64(b.base)
		j.memory = memoryTail{}
		if keep > 0 {
			j.memory = memoryTail{base: b.base, frames: b.buf[:keep]}
		}
	}
	j.committed.Store(max(j.committed.Load(), uint64(b.base)))
}

// roll begins the next segment where the written records end.
func (j *Journal) roll(base Position) error {
	old := j.active.file
	if err := j.createSegment(base); err != nil {
		return fmt.Errorf("new segment: %w", err)
	}
	if err := old.Close(); err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	return nil
}
