package layer

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// remove deletes a name in a directory, with everything below it.
func (r *rollback) remove(f *frame, name string, st *unix.Statx_t) error {
	if err := r.modify(f); err != nil {
		return err
	}
	r.stats.Removed++
	if kindOf(st.Mode) == kindDir {
		return r.removeTree(f.fd, name)
	}
	return unlink(f.fd, name, st)
}

func unlink(dirfd int, name string, st *unix.Statx_t) error {
	if inodeFlags(st) != 0 {
		if err := clearFlags(dirfd, name); err != nil {
			return err
		}
	}
	return pathError("unlinkat", name, unix.Unlinkat(dirfd, name, 0))
}

// removeTree deletes a directory of any depth with three descriptors: the
// directories in its subdirectories are moved up to itself, until there are
// none.
func (r *rollback) removeTree(dirfd int, name string) error {
	top, err := r.openDoomed(dirfd, name)
	if err != nil {
		return err
	}
	defer closeFD(top)
	for moved := 0; ; {
		if _, err := unix.Seek(top, 0, unix.SEEK_SET); err != nil {
			return os.NewSyscallError("lseek", err)
		}
		names, err := readNames(top, r.dirents[:])
		if err != nil {
			return err
		}
		if len(names) == 0 {
			break
		}
		for _, child := range names {
			if err := r.removeIn(top, child, top, &moved, true); err != nil {
				return err
			}
		}
	}
	return pathError("unlinkat", name, unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR))
}

// removeIn deletes a name in dirfd. Of a directory it deletes what is not one,
// and moves what is one to top; if dirfd is not top, it is itself moved.
func (r *rollback) removeIn(dirfd int, name string, top int, moved *int, atTop bool) error {
	if err := r.step(); err != nil {
		return err
	}
	var st unix.Statx_t
	if err := statAt(dirfd, name, &st); err != nil {
		return err
	}
	if foreign(&st, r.dev) {
		return fmt.Errorf("%s is a mount point below a directory that has to go: %w", name, unix.EBUSY)
	}
	if kindOf(st.Mode) != kindDir {
		return unlink(dirfd, name, &st)
	}
	if !atTop {
		if inodeFlags(&st) != 0 {
			if err := clearFlags(dirfd, name); err != nil {
				return err
			}
		}
		return hoist(dirfd, name, top, moved)
	}
	fd, err := r.openDoomed(dirfd, name)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	names, err := readNames(fd, r.dirents[:])
	if err != nil {
		return err
	}
	for _, child := range names {
		if err := r.removeIn(fd, child, top, moved, false); err != nil {
			return err
		}
	}
	return pathError("unlinkat", name, unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR))
}

// hoist moves a directory to top, under a name that is free there.
func hoist(dirfd int, name string, top int, moved *int) error {
	for {
		*moved++
		err := unix.Renameat2(dirfd, name, top, "doomed."+strconv.Itoa(*moved), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return pathError("renameat2", name, err)
		}
	}
}

// openDoomed opens a directory in which names are about to be removed.
func (r *rollback) openDoomed(dirfd int, name string) (int, error) {
	if err := clearFlags(dirfd, name); err != nil {
		return -1, err
	}
	return openDir(dirfd, name)
}
