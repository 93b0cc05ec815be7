package criu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// A task may have one part in reserveSlack more memory than last time, and
	// reserveSlackMin at least.
	reserveSlack    = 16
	reserveSlackMin = 256 << 10
	// keepFree is the part of what is free, one in keepFree, that stays so: for
	// the other images.
	keepFree = 8
)

// reserve gives the files that will hold memory in the directory images the
// memory for it, ahead of the freeze: as much as those of the previous checkpoint
// have, and limit bytes at most if that is not 0. It is of no use where images is on
// a disk, and with a CRIU without Features.Patched. What does not fit is not
// reserved.
func reserve(images, previous string, limit int64) error {
	names, err := fs.Glob(os.DirFS(previous), "pages-*.img")
	if err != nil {
		return err
	}
	for _, name := range names {
		st, err := os.Lstat(filepath.Join(previous, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was moved meanwhile
		}
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() || st.Size() == 0 {
			continue
		}
		size := st.Size() + max(st.Size()/reserveSlack, reserveSlackMin)
		if limit > 0 {
			if size > limit {
				continue
			}
			limit -= size
		}
		if err := allocate(filepath.Join(images, name), size); err != nil {
			return fmt.Errorf("reserve memory for images: %w", err)
		}
	}
	return nil
}

// allocate makes a file of size bytes, or an empty one if there is no room.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if free := int64(fs.Bfree) * fs.Bsize; size > free-free/keepFree {
		return nil
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if err == nil {
		err = populate(f, size)
	}
	for _, none := range []error{unix.ENOSPC, unix.ENOMEM, unix.EFAULT, unix.EOPNOTSUPP} {
		if errors.Is(err, none) {
			return f.Truncate(0)
		}
	}
	if err != nil {
		return &os.PathError{Op: "allocate", Path: path, Err: err}
	}
	return nil
}

// populate clears the memory of f, which the kernel would otherwise do when it is
// first written to: that of a whole large page for some bytes of it.
func populate(f *os.File, size int64) error {
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	err = unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	if errors.Is(err, unix.EINVAL) {
		err = nil // before Linux 5.14
	}
	return errors.Join(err, unix.Munmap(b))
}
