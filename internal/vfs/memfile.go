package vfs

import (
	"io"
	"io/fs"
)

// memNode is the content of a file: as it is, as it was at the last Sync, and
// what happened in between.
type memNode struct {
	data   []byte
	synced []byte
	log    []fileOp
}

// fileOp is a write of data at off, or a change of the size to off bytes when
// resize is set.
type fileOp struct {
	resize bool
	off    int64
	data   []byte
}

func (n *memNode) truncate(size int64) {
	op := fileOp{resize: true, off: size}
	n.data = op.apply(n.data)
	n.log = append(n.log, op)
}

// apply returns data with the operation done to it, in place where it fits.
func (op fileOp) apply(data []byte) []byte {
	if op.resize {
		return resize(data, op.off)
	}
	if end := op.off + int64(len(op.data)); end > int64(len(data)) {
		data = resize(data, end)
	}
	copy(data[op.off:], op.data)
	return data
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		clear(data[size:])
		return data[:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

// memFile is a handle on a memNode.
type memFile struct {
	fs     *MemFS
	node   *memNode
	name   string
	write  bool
	closed bool
}

// checkLocked refuses the use of a closed handle, and writes on a read handle.
func (f *memFile) checkLocked(op string, write bool) error {
	if f.closed {
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	}
	if write && !f.write {
		return &fs.PathError{Op: op, Path: f.name, Err: fs.ErrPermission}
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked("read", false); err != nil {
		return 0, err
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked("write", true); err != nil {
		return 0, err
	}
	op := fileOp{off: off, data: append([]byte(nil), p...)}
	f.node.data = op.apply(f.node.data)
	f.node.log = append(f.node.log, op)
	return len(p), nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked("sync", false); err != nil {
		return err
	}
	for _, op := range f.node.log {
		f.node.synced = op.apply(f.node.synced)
	}
	f.node.log = nil
	return nil
}

func (f *memFile) Preallocate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked("preallocate", true); err != nil {
		return err
	}
	if size > int64(len(f.node.data)) {
		f.node.truncate(size)
	}
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.checkLocked("truncate", true); err != nil {
		return err
	}
	f.node.truncate(size)
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), f.checkLocked("stat", false)
}

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.checkLocked("close", false)
	f.closed = true
	return err
}
