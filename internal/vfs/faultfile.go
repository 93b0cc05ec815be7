package vfs

import "errors"

// faultFile asks its FaultFS before each operation. Size and Close pass.
type faultFile struct {
	File
	fs   *FaultFS
	name string
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fs.ask(Op{Kind: OpRead, Path: f.name, Offset: off, Size: int64(len(p))}); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.fs.ask(Op{Kind: OpWrite, Path: f.name, Offset: off, Size: int64(len(p))})
	var short *ShortWrite
	if errors.As(err, &short) {
		n, writeErr := f.File.WriteAt(p[:min(short.Keep, len(p))], off)
		return n, errors.Join(err, writeErr)
	}
	if err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *faultFile) Sync() error {
	if err := f.fs.ask(Op{Kind: OpSync, Path: f.name}); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) Preallocate(size int64) error {
	if err := f.fs.ask(Op{Kind: OpPreallocate, Path: f.name, Size: size}); err != nil {
		return err
	}
	return f.File.Preallocate(size)
}

func (f *faultFile) Truncate(size int64) error {
	if err := f.fs.ask(Op{Kind: OpTruncate, Path: f.name, Size: size}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}
