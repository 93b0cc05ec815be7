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
	// What a task may take until it is frozen: one part in reserveSlack of what it
	// has where nothing is known of it, and one in steadySlack or reserveSlackMin
	// in any case.
	reserveSlack    = 16
	steadySlack     = 256
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
// Memory that KeepPages has left there is taken first.
func reserve(images string, pid int, previous string, limit int64) error {
	sizes, tasks, err := expect(pid, previous)
	if err == nil {
		err = removeBeyond(images, len(sizes))
	}
	if err != nil {
		return fmt.Errorf("reserve memory for images: %w", err)
	}
	for i, size := range sizes {
		before := int64(0) // how what is shared has grown is not known
		if i < tasks {
			before = sizeBefore(previous, i)
		}
		if size > 0 {
			size += slack(size, before)
		}
		if limit > 0 {
			if size > limit {
				size = 0
			}
			limit -= size
		}
		if err := allocate(filepath.Join(images, pagesName(uint32(i+1))), size); err != nil {
			return fmt.Errorf("reserve memory for images: %w", err)
		}
	}
	return nil
}

// slack is how many bytes are reserved beyond the size that a task has. It had
// before at the previous checkpoint; 0: that is not known. What is not needed is cut off
// after each dump, and has to be cleared again for the next one, at the price of all
// new memory: a task that stands still gets little.
func slack(size, before int64) int64 {
	most := max(size/reserveSlack, reserveSlackMin)
	if before == 0 {
		return most
	}
	return min(most, max(2*(size-before), size/steadySlack, reserveSlackMin))
}

// sizeBefore is the size of the i-th file with memory in the directory previous, 0
// if there is none.
func sizeBefore(previous string, i int) int64 {
	if previous == "" {
		return 0
	}
	st, err := os.Lstat(filepath.Join(previous, pagesName(uint32(i+1))))
	if err != nil {
		return 0 // it was moved meanwhile
	}
	return st.Size()
}

// expect estimates how large the files will be that hold memory, in bytes, in the
// order of their numbers: CRIU goes through the tasks as eachDescendant does, and
// then through what they share.
func expect(pid int, previous string) (sizes []int64, tasks int, err error) {
	add := func(pid int) error {
		size, alive, err := privateMemory(pid)
		if alive {
			sizes = append(sizes, size)
		}
		return err
	}
	if err := add(pid); err != nil {
		return nil, 0, err
	}
	if err := eachDescendant(pid, add); err != nil {
		return nil, 0, err
	}
	tasks = len(sizes)
	for previous != "" {
		st, err := os.Lstat(filepath.Join(previous, pagesName(uint32(len(sizes)+1))))
		if errors.Is(err, fs.ErrNotExist) {
			break // also if the checkpoint was moved meanwhile
		}
		if err != nil {
			return nil, 0, err
		}
		sizes = append(sizes, st.Size())
	}
	return sizes, tasks, nil
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

// KeepPages removes from a directory with images all but memory that Dump may use
// again, with DumpOptions.Reserve, if the directory becomes its Images. It returns
// how many bytes that is. What has another name elsewhere is not among it.
func KeepPages(images string) (bytes int64, err error) {
	list, err := os.ReadDir(images)
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		path := filepath.Join(images, e.Name())
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return 0, &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		if pagesID(e.Name()) > 0 && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 {
			bytes += st.Blocks * 512
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return 0, err
		}
	}
	return bytes, nil
}

// pagesID is the number in the name of a file with memory, 0 for any other name.
func pagesID(name string) int {
	n, _ := strings.CutPrefix(name, "pages-")
	n, _ = strings.CutSuffix(n, ".img")
	id, err := strconv.Atoi(n)
	if err != nil || id <= 0 || name != pagesName(uint32(id)) {
		return 0
	}
	return id
}

// removeBeyond removes files with memory whose numbers are greater than last: CRIU
// would leave them as they are.
func removeBeyond(images string, last int) error {
	list, err := os.ReadDir(images)
	for _, e := range list {
		if err == nil && pagesID(e.Name()) > last {
			err = os.Remove(filepath.Join(images, e.Name()))
		}
	}
	return err
}

// allocate gives a file of size bytes memory, or makes it an empty one if there is
// no room. It has none for 0 bytes.
func allocate(path string, size int64) error {
	if size == 0 {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() > size {
		if err := f.Truncate(size); err != nil {
			return err
		}
	}
	var in unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &in); err != nil {
		return &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if free := int64(in.Bfree) * in.Bsize; size-st.Size() > free-free/keepFree {
		return f.Truncate(0)
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
