package layer

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// From linux/fs.h, for FS_IOC_SETFLAGS.
const (
	fsImmutable = 0x10
	fsAppend    = 0x20
)

// setFlags gives an open file these two flags and leaves its others alone.
// Overlayfs keeps the flags that a container sets in an extended attribute;
// only trees that are used directly have them on the inode.
func setFlags(fd int, flags uint8) error {
	have, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return os.NewSyscallError("FS_IOC_GETFLAGS", err)
	}
	want := have &^ (fsImmutable | fsAppend)
	if flags&flagImmutable != 0 {
		want |= fsImmutable
	}
	if flags&flagAppend != 0 {
		want |= fsAppend
	}
	if want == have {
		return nil
	}
	return os.NewSyscallError("FS_IOC_SETFLAGS", unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(want)))
}

// clearFlags takes the flags off a name, if it has any.
func clearFlags(dirfd int, name string) error {
	var st unix.Statx_t
	if err := statAt(dirfd, name, &st); err != nil || inodeFlags(&st) == 0 {
		return err
	}
	return restoreFlags(dirfd, name, 0)
}

// restoreFlags sets the flags of a name, which is a regular file or a
// directory: others can't have any.
func restoreFlags(dirfd int, name string, flags uint8) error {
	fd, err := openAt(dirfd, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return errors.Join(setFlags(fd, flags), pathError("close", name, unix.Close(fd)))
}
