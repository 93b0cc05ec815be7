package layer

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// compareChunk is what is compared, and written, at a time.
const compareChunk = 256 << 10

// repairContents makes the bytes of an open file what the snapshot holds,
// writing only where they differ. size is what it has now.
func (r *rollback) repairContents(fd int, e *entry, size int64) error {
	before := r.stats.CopiedBytes
	wrote := size != e.size
	if wrote {
		if err := r.step(); err != nil {
			return err
		}
		if err := unix.Ftruncate(fd, e.size); err != nil {
			return os.NewSyscallError("ftruncate", err)
		}
	}
	if r.have == nil {
		r.have, r.want = make([]byte, compareChunk), make([]byte, compareChunk)
	}
	at := int64(0)
	for _, x := range e.extents {
		if err := r.repairHole(fd, at, x.off); err != nil {
			return err
		}
		if err := r.repairExtent(fd, x); err != nil {
			return err
		}
		at = x.off + x.length
	}
	if err := r.repairHole(fd, at, e.size); err != nil {
		return err
	}
	r.stats.Bytes += e.bytes()
	if wrote || r.stats.CopiedBytes != before {
		r.stats.Copied++
	}
	return nil
}

func (r *rollback) repairExtent(fd int, x extent) error {
	for done := int64(0); done < x.length; done += compareChunk {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		n := min(x.length-done, compareChunk)
		have, want := r.have[:n], r.want[:n]
		if err := readFull(fd, have, x.off+done); err != nil {
			return err
		}
		if err := readFull(r.snap.packs[x.pack], want, x.packOff+done); err != nil {
			return err
		}
		if bytes.Equal(have, want) {
			continue
		}
		if err := r.step(); err != nil {
			return err
		}
		if err := writeFull(fd, want, x.off+done); err != nil {
			return err
		}
		r.stats.CopiedBytes += n
	}
	return nil
}

// repairHole makes the bytes from start to end zeros, and gives back their
// space if they were not.
func (r *rollback) repairHole(fd int, start, end int64) error {
	if start >= end {
		return nil
	}
	return dataRanges(fd, start, end, func(off, length int64) error {
		zero, err := r.isZero(fd, off, length)
		if zero || err != nil {
			return err
		}
		if err := r.step(); err != nil {
			return err
		}
		r.stats.CopiedBytes += length
		const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		err = unix.Fallocate(fd, punch, off, length)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return os.NewSyscallError("fallocate", err)
		}
		zeros := make([]byte, min(length, compareChunk))
		for done := int64(0); done < length; done += int64(len(zeros)) {
			zeros = zeros[:min(int64(len(zeros)), length-done)]
			if err := writeFull(fd, zeros, off+done); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *rollback) isZero(fd int, off, length int64) (bool, error) {
	clear(r.want)
	for done := int64(0); done < length; done += compareChunk {
		if err := r.ctx.Err(); err != nil {
			return false, err
		}
		n := min(length-done, compareChunk)
		if err := readFull(fd, r.have[:n], off+done); err != nil {
			return false, err
		}
		if !bytes.Equal(r.have[:n], r.want[:n]) {
			return false, nil
		}
	}
	return true, nil
}
