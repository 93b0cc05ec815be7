package layer

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// packBuffer gathers the contents of small files to one write.
	packBuffer = 1 << 20
	// largeExtent is the length from which an extent is copied by the kernel,
	// and begins at a multiple of packAlign, so that a file system that can
	// share blocks does (copy_file_range tries that first).
	largeExtent = 128 << 10
	packAlign   = 4096
	// copyChunk bounds the time between two looks at the context.
	copyChunk = 32 << 20
)

func packName(id uint32) string { return fmt.Sprintf("pack.%08x", id) }

// packWriter appends extents to a pack file, which create makes, or the first
// write.
type packWriter struct {
	dirfd int
	id    uint32
	fd    int   // -1 before the first write
	size  int64 // bytes, in the file
	buf   []byte
	noCFR bool // copy_file_range does not work from that source
}

func newPackWriter(dirfd int, id uint32) *packWriter {
	return &packWriter{dirfd: dirfd, id: id, fd: -1}
}

// end is where the next extent begins, unless it is large.
func (w *packWriter) end() int64 { return w.size + int64(len(w.buf)) }

// copy appends length bytes from offset off of the open file src.
func (w *packWriter) copy(ctx context.Context, src int, off, length int64) (packOff int64, err error) {
	if length < largeExtent {
		return w.copySmall(src, off, int(length))
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	w.size = (w.size + packAlign - 1) &^ (packAlign - 1)
	packOff = w.size
	for done := int64(0); done < length; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := w.copyChunk(src, off+done, min(length-done, copyChunk))
		if err != nil {
			return 0, err
		}
		done += n
	}
	return packOff, nil
}

func (w *packWriter) copySmall(src int, off int64, length int) (packOff int64, err error) {
	if w.buf == nil {
		w.buf = make([]byte, 0, packBuffer)
	}
	if len(w.buf)+length > cap(w.buf) {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	packOff = w.end()
	at := len(w.buf)
	if err := readFull(src, w.buf[at:at+length], off); err != nil {
		return 0, err
	}
	w.buf = w.buf[:at+length]
	return packOff, nil
}

// copyChunk appends at most length bytes, without the buffer.
func (w *packWriter) copyChunk(src int, off, length int64) (int64, error) {
	if err := w.create(); err != nil {
		return 0, err
	}
	n, err := copyRange(w.fd, w.size, src, off, length, &w.noCFR)
	w.size += n
	return n, err
}

func (w *packWriter) create() (err error) {
	if w.fd < 0 {
		w.fd, err = openAt(w.dirfd, packName(w.id), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	}
	return err
}

func (w *packWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if err := w.create(); err != nil {
		return err
	}
	if err := writeFull(w.fd, w.buf, w.size); err != nil {
		return err
	}
	w.size += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

func (w *packWriter) close() {
	if w.fd >= 0 {
		closeFD(w.fd)
		w.fd = -1
	}
}

// copyRange copies at least one and at most length bytes between open files.
// noCFR remembers that the kernel does not do it between these file systems.
func copyRange(dst int, dstOff int64, src int, srcOff, length int64, noCFR *bool) (int64, error) {
	if !*noCFR {
		n, err := unix.CopyFileRange(src, &srcOff, dst, &dstOff, int(length), 0)
		switch {
		case err == nil && n == 0:
			return 0, ErrChanged
		case err == nil:
			return int64(n), nil
		case errors.Is(err, unix.EINTR):
			return 0, nil
		case !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EINVAL) &&
			!errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS):
			return 0, os.NewSyscallError("copy_file_range", err)
		}
		*noCFR = true
	}
	buf := make([]byte, min(length, packBuffer))
	for done := int64(0); done < length; done += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), length-done)]
		if err := readFull(src, buf, srcOff+done); err != nil {
			return done, err
		}
		if err := writeFull(dst, buf, dstOff+done); err != nil {
			return done, err
		}
	}
	return length, nil
}

// readFull fills b; a file that ends early has changed.
func readFull(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(fd, b, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("pread", err)
		}
		if n == 0 {
			return ErrChanged
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func writeFull(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("pwrite", err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// dataRanges calls fn for each run of data of an open file from offset off to
// end; between them are holes, which read as zeros.
func dataRanges(fd int, off, end int64, fn func(off, length int64) error) error {
	for off < end {
		start, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		stop, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		if start >= end {
			return nil
		}
		stop = min(stop, end)
		if err := fn(start, stop-start); err != nil {
			return err
		}
		off = stop
	}
	return nil
}
