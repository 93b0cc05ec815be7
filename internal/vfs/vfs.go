package vfs

import "io"

// FS is a file system. Names are paths with "/" separators. All methods may be
// called concurrently. Errors satisfy errors.Is with the io/fs sentinels.
type FS interface {
	// Create makes an empty file with mode 0600, open for reading and
	// writing, or empties the one that exists. The name is durable after
	// SyncDir.
	Create(name string) (File, error)

	// Open opens an existing file for reading.
	Open(name string) (File, error)

	// OpenWrite opens an existing file for reading and writing, unchanged.
	OpenWrite(name string) (File, error)

	// Remove deletes a file or an empty directory.
	Remove(name string) error

	// Rename gives a file a new name in the same or another directory,
	// replacing what has that name, atomically.
	Rename(oldName, newName string) error

	// MkdirAll makes a directory with mode 0700, with its parents. If it
	// exists it must be private: see ErrUnsafeDir.
	MkdirAll(dir string) error

	// List returns the names in a directory, sorted, without the path.
	List(dir string) ([]string, error)

	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error

	// Lock takes the directory for this process until the returned Closer is
	// closed or the process ends. It does not wait: see ErrLocked.
	Lock(dir string) (io.Closer, error)
}

// File is an open file. ReadAt may run concurrently with everything; the other
// methods belong to one goroutine. The caller closes it.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer

	// Sync makes the data, and the size, durable (fdatasync).
	Sync() error

	// Preallocate reserves space up to size bytes, which read as zeros where
	// nothing was written. It never shrinks the file.
	Preallocate(size int64) error

	// Truncate sets the size in bytes.
	Truncate(size int64) error

	// Size returns the size in bytes.
	Size() (int64, error)
}
