package layer

import (
	"errors"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// beneath are the rules for every name that is resolved in a tree: names come
// one component at a time, so this is a second bolt on the door.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

const statxMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// openAt opens one name in a directory. Flags always include O_NOFOLLOW.
func openAt(dirfd int, name string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC),
		Mode:    uint64(mode),
		Resolve: beneath,
	}
	for {
		fd, err := unix.Openat2(dirfd, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, pathError("openat2", name, err)
		}
	}
}

func openDir(dirfd int, name string) (int, error) {
	return openAt(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME, 0)
}

// openRoot opens the top of a tree, the one path that is trusted but for its
// last component.
func openRoot(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return fd, pathError("open", path, err)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// statAt reads the metadata of a name without following it, or of the open file
// itself if the name is empty.
func statAt(dirfd int, name string, st *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	for {
		err := unix.Statx(dirfd, name, flags, statxMask, st)
		if err != unix.EINTR {
			return pathError("statx", name, err)
		}
	}
}

func deviceOf(st *unix.Statx_t) uint64 { return unix.Mkdev(st.Dev_major, st.Dev_minor) }

// foreign reports whether what has a name in the tree belongs to another mount
// or file system than the tree.
func foreign(st *unix.Statx_t, dev uint64) bool {
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 || deviceOf(st) != dev
}

// inodeFlags returns the flags of an entry.
func inodeFlags(st *unix.Statx_t) (flags uint8) {
	if st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
		flags |= flagImmutable
	}
	if st.Attributes&unix.STATX_ATTR_APPEND != 0 {
		flags |= flagAppend
	}
	return flags
}

// readNames lists a directory that was just opened, sorted. buf is for the
// system call.
func readNames(fd int, buf []byte) ([]string, error) {
	var names []string
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("getdents64", err)
		}
		if n <= 0 {
			slices.Sort(names)
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// procPath names the open file fd, also one that was opened with O_PATH, even a
// symbolic link: following the name arrives at the inode and goes no further.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func closeFD(fd int) { _ = unix.Close(fd) }
