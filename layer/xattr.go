package layer

import (
	"bytes"
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// xattrBuffer holds a list of names or a value; 64 KiB is the kernel's limit
// (XATTR_LIST_MAX, XATTR_SIZE_MAX).
type xattrBuffer [65536]byte

// readXattrs returns the extended attributes of an open file, sorted. With
// O_PATH descriptors it takes the way through /proc.
func readXattrs(fd int, opath bool, buf *xattrBuffer) ([]xattr, error) {
	list := func(b []byte) (int, error) { return unix.Flistxattr(fd, b) }
	get := func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) }
	if opath {
		path := procPath(fd)
		list = func(b []byte) (int, error) { return unix.Listxattr(path, b) }
		get = func(name string, b []byte) (int, error) { return unix.Getxattr(path, name, b) }
	}
	n, err := list(buf[:])
	if n == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("listxattr", err)
	}
	names := bytes.Split(bytes.TrimSuffix(bytes.Clone(buf[:n]), []byte{0}), []byte{0})
	attrs := make([]xattr, 0, len(names))
	for _, name := range names {
		n, err := get(string(name), buf[:])
		if err != nil {
			return nil, pathError("getxattr", string(name), err)
		}
		attrs = append(attrs, xattr{name, bytes.Clone(buf[:n])})
	}
	slices.SortFunc(attrs, func(a, b xattr) int { return bytes.Compare(a.name, b.name) })
	return attrs, nil
}

// setXattrs makes the attributes of the file at path (see procPath) want
// instead of have; both are sorted.
func setXattrs(path string, have, want []xattr) (changed bool, err error) {
	for len(have) > 0 || len(want) > 0 {
		order := 0
		switch {
		case len(have) == 0:
			order = 1
		case len(want) == 0:
			order = -1
		default:
			order = bytes.Compare(have[0].name, want[0].name)
		}
		if order < 0 {
			changed = true
			if err := unix.Removexattr(path, string(have[0].name)); err != nil && !errors.Is(err, unix.ENODATA) {
				return changed, pathError("removexattr", string(have[0].name), err)
			}
			have = have[1:]
			continue
		}
		if order > 0 || !bytes.Equal(have[0].value, want[0].value) {
			changed = true
			if err := unix.Setxattr(path, string(want[0].name), want[0].value, 0); err != nil {
				return changed, pathError("setxattr", string(want[0].name), err)
			}
		}
		if order == 0 {
			have = have[1:]
		}
		want = want[1:]
	}
	return changed, nil
}

func sameXattrs(a, b []xattr) bool {
	return slices.EqualFunc(a, b, func(a, b xattr) bool {
		return bytes.Equal(a.name, b.name) && bytes.Equal(a.value, b.value)
	})
}
