package journal

import (
	"io"

	"github.com/crsc-io/crsc/internal/vfs"
)

// windowSize is how much a window reads at a time, in bytes: large enough that
// system calls do not matter, small enough to stay in the cache.
const windowSize = 256 << 10

// window reads a file in large steps.
type window struct {
	file  vfs.File
	buf   []byte
	start int64 // offset of buf[0]
}

// reset makes the window forget what it has read, and read from file.
func (w *window) reset(file vfs.File) {
	w.file, w.buf, w.start = file, w.buf[:0], 0
}

// bytes returns n bytes from off, or as many as the file has. They are valid
// until the next call.
func (w *window) bytes(off int64, n int) ([]byte, error) {
	if off < w.start || off+int64(n) > w.start+int64(len(w.buf)) {
		if err := w.fill(off, max(n, windowSize)); err != nil {
			return nil, err
		}
	}
	from := min(int(off-w.start), len(w.buf))
	return w.buf[from:min(from+n, len(w.buf))], nil
}

func (w *window) fill(off int64, n int) error {
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.start = off
	got, err := w.file.ReadAt(w.buf[:n], off)
	w.buf = w.buf[:got]
	if err == io.EOF {
		return nil
	}
	return err
}
