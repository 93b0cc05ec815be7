package vfs

import (
	"fmt"
	"io"
	"sync/atomic"
)

// OpKind names an operation of FS or File.
type OpKind string

// The operations that a FaultFS reports. Closing a file and reading its size
// are not among them: neither fails on a bad disk.
const (
	OpCreate      OpKind = "create"
	OpOpen        OpKind = "open"
	OpOpenWrite   OpKind = "open-write"
	OpRemove      OpKind = "remove"
	OpRename      OpKind = "rename"
	OpMkdirAll    OpKind = "mkdir"
	OpList        OpKind = "list"
	OpSyncDir     OpKind = "sync-dir"
	OpLock        OpKind = "lock"
	OpRead        OpKind = "read"
	OpWrite       OpKind = "write"
	OpSync        OpKind = "sync"
	OpPreallocate OpKind = "preallocate"
	OpTruncate    OpKind = "truncate"
)

// Op is one operation about to be done.
type Op struct {
	Kind   OpKind
	Path   string
	N      int64 // ordinal of the operation in this FaultFS, from 1
	Offset int64 // of a read or write, bytes
	Size   int64 // of a read, write, truncate or preallocate, bytes
}

// Mutates tells whether the operation can change what is on disk.
func (o Op) Mutates() bool {
	switch o.Kind {
	case OpOpen, OpOpenWrite, OpList, OpRead, OpLock:
		return false
	}
	return true
}

// ShortWrite is a fault that lets the first Keep bytes of a write reach the
// file and then fails with Err.
type ShortWrite struct {
	Keep int
	Err  error
}

func (s *ShortWrite) Error() string { return fmt.Sprintf("short write of %d bytes: %v", s.Keep, s.Err) }
func (s *ShortWrite) Unwrap() error { return s.Err }

// FaultFS wraps an FS. Before each operation it asks decide; an error stops
// the operation and is returned in its place (a *ShortWrite does part of it).
type FaultFS struct {
	fs     FS
	decide func(Op) error
	ops    atomic.Int64
}

// NewFault returns a FaultFS over fs. decide may be called concurrently.
func NewFault(fs FS, decide func(Op) error) *FaultFS {
	return &FaultFS{fs: fs, decide: decide}
}

// FailNth returns a decision that fails the nth mutating operation, once.
func FailNth(n int64, err error) func(Op) error {
	var seen atomic.Int64
	return func(op Op) error {
		if op.Mutates() && seen.Add(1) == n {
			return err
		}
		return nil
	}
}

// Ops returns how many operations have been started.
func (f *FaultFS) Ops() int64 { return f.ops.Load() }

func (f *FaultFS) ask(op Op) error {
	op.N = f.ops.Add(1)
	if err := f.decide(op); err != nil {
		return fmt.Errorf("%s %s: %w", op.Kind, op.Path, err)
	}
	return nil
}

func (f *FaultFS) open(kind OpKind, name string, open func(string) (File, error)) (File, error) {
	if err := f.ask(Op{Kind: kind, Path: name}); err != nil {
		return nil, err
	}
	file, err := open(name)
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, fs: f, name: name}, nil
}

// Create implements FS.
func (f *FaultFS) Create(name string) (File, error) { return f.open(OpCreate, name, f.fs.Create) }

// Open implements FS.
func (f *FaultFS) Open(name string) (File, error) { return f.open(OpOpen, name, f.fs.Open) }

// OpenWrite implements FS.
func (f *FaultFS) OpenWrite(name string) (File, error) {
	return f.open(OpOpenWrite, name, f.fs.OpenWrite)
}

// Remove implements FS.
func (f *FaultFS) Remove(name string) error {
	if err := f.ask(Op{Kind: OpRemove, Path: name}); err != nil {
		return err
	}
	return f.fs.Remove(name)
}

// Rename implements FS.
func (f *FaultFS) Rename(oldName, newName string) error {
	if err := f.ask(Op{Kind: OpRename, Path: newName}); err != nil {
		return err
	}
	return f.fs.Rename(oldName, newName)
}

// MkdirAll implements FS.
func (f *FaultFS) MkdirAll(dir string) error {
	if err := f.ask(Op{Kind: OpMkdirAll, Path: dir}); err != nil {
		return err
	}
	return f.fs.MkdirAll(dir)
}

// List implements FS.
func (f *FaultFS) List(dir string) ([]string, error) {
	if err := f.ask(Op{Kind: OpList, Path: dir}); err != nil {
		return nil, err
	}
	return f.fs.List(dir)
}

// SyncDir implements FS.
func (f *FaultFS) SyncDir(dir string) error {
	if err := f.ask(Op{Kind: OpSyncDir, Path: dir}); err != nil {
		return err
	}
	return f.fs.SyncDir(dir)
}

// Lock implements FS.
func (f *FaultFS) Lock(dir string) (io.Closer, error) {
	if err := f.ask(Op{Kind: OpLock, Path: dir}); err != nil {
		return nil, err
	}
	return f.fs.Lock(dir)
}
