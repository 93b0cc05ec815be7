package criu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
// memory for it, ahead of the freeze: as much as the processes of the tree of pid
// have, for segments that they share what those of the previous checkpoint have, and
// limit bytes in all if that is not 0. It is of no use where images is on a disk,
// and with a CRIU without Features.Patched. What does not fit is not reserved.
func reserve(images string, pid int, previous string, limit int64) error {
	sizes, err := expect(pid, previous)
	if err != nil {
		return fmt.Errorf("reserve memory for images: %w", err)
	}
	for i, size := range sizes {
		if size == 0 {
			continue
		}
		size += max(size/reserveSlack, reserveSlackMin)
		if limit > 0 {
			if size > limit {
				continue
			}
			limit -= size
		}
		if err := allocate(filepath.Join(images, pagesName(uint32(i+1))), size); err != nil {
			return fmt.Errorf("reserve memory for images: %w", err)
		}
	}
	return nil
}

// expect estimates how large the files will be that hold memory, in bytes, in the
// order of their numbers: CRIU goes through the tasks as eachDescendant does, and
// then through what they share.
func expect(pid int, previous string) ([]int64, error) {
	var sizes []int64
	add := func(pid int) error {
		size, alive, err := privateMemory(pid)
		if alive {
			sizes = append(sizes, size)
		}
		return err
	}
	if err := add(pid); err != nil {
		return nil, err
	}
	if err := eachDescendant(pid, add); err != nil {
		return nil, err
	}
	for previous != "" {
		st, err := os.Lstat(filepath.Join(previous, pagesName(uint32(len(sizes)+1))))
		if errors.Is(err, fs.ErrNotExist) {
			break // also if the checkpoint was moved meanwhile
		}
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, st.Size())
	}
	return sizes, nil
}

// privateMemory is what a process does not share with another, in bytes. A zombie
// has none and is not alive, nor is one that has gone.
func privateMemory(pid int) (size int64, alive bool, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if gone(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	for line := range strings.Lines(string(b)) {
		switch key, value, _ := strings.Cut(line, ":"); key {
		case "RssAnon", "VmSwap", "HugetlbPages":
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0, false, fmt.Errorf("/proc/%d/status: %w", pid, err)
			}
			size, alive = size+n<<10, true
		}
	}
	return size, alive, nil
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
