package vfs

import "errors"

var (
	// ErrLocked is returned by FS.Lock when another holder has the directory.
	ErrLocked = errors.New("directory is locked by another process")

	// ErrUnsafeDir is returned by FS.MkdirAll when the directory exists but
	// belongs to another user or can be written by group or others: whoever
	// can write there could replace our files.
	ErrUnsafeDir = errors.New("directory is not private")

	// ErrNotRegular is returned when a file is opened that is not a regular
	// file (a link, a pipe, a device).
	ErrNotRegular = errors.New("not a regular file")
)
