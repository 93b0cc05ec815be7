package layer

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// describe returns everything about a tree that can be seen from outside, by
// path: kind, mode, owner, times, device, attributes, flags, contents, and which
// names are one inode. Directories' sizes and link counts belong to the file
// system. With ino, also inode numbers and ctimes: that nothing was touched.
func describe(t testing.TB, root string, ino bool) map[string]string {
	t.Helper()
	tree := map[string]string{}
	first := map[uint64]string{}
	var visit func(path string)
	visit = func(path string) {
		var st unix.Stat_t
		require.NoError(t, unix.Lstat(path, &st), path)
		rel, err := filepath.Rel(root, path)
		require.NoError(t, err)
		b := &strings.Builder{}
		fmt.Fprintf(b, "mode=%o owner=%d:%d mtime=%d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		if ino {
			fmt.Fprintf(b, " ino=%d ctime=%d.%09d", st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
		}
		fmt.Fprintf(b, " xattrs=%s", describeXattrs(t, path))
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			fmt.Fprintf(b, " flags=%s", describeFlags(t, path))
		case unix.S_IFREG:
			fmt.Fprintf(b, " size=%d data=%s flags=%s", st.Size, describeData(t, path), describeFlags(t, path))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			require.NoError(t, err)
			fmt.Fprintf(b, " target=%q", target)
		default:
			fmt.Fprintf(b, " rdev=%x", st.Rdev)
		}
		whiteout := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && !whiteout && st.Nlink > 1 {
			if _, ok := first[st.Ino]; !ok {
				first[st.Ino] = rel
			}
			fmt.Fprintf(b, " same-as=%q nlink=%d", first[st.Ino], st.Nlink)
		}
		tree[rel] = b.String()
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			entries, err := os.ReadDir(path)
			require.NoError(t, err)
			for _, e := range entries {
				visit(filepath.Join(path, e.Name()))
			}
		}
	}
	visit(root)
	return tree
}

func describeXattrs(t testing.TB, path string) string {
	buf := make([]byte, 65536)
	n, err := unix.Llistxattr(path, buf)
	require.NoError(t, err, path)
	var attrs []string
	for name := range bytes.SplitSeq(bytes.Trim(buf[:n], "\x00"), []byte{0}) {
		if len(name) == 0 {
			continue
		}
		value := make([]byte, 65536)
		n, err := unix.Lgetxattr(path, string(name), value)
		require.NoError(t, err, path)
		attrs = append(attrs, fmt.Sprintf("%s=%x", name, value[:n]))
	}
	sort.Strings(attrs)
	return strings.Join(attrs, ",")
}

func describeFlags(t testing.TB, path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	require.NoError(t, err, path)
	defer closeFD(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return "none" // the file system has no flags
	}
	return fmt.Sprintf("%x", flags&(fsImmutable|fsAppend))
}

// describeData hashes the pages that are not zero, with their places.
func describeData(t testing.TB, path string) string {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	require.NoError(t, err)
	hash := sha256.New()
	page, zero := make([]byte, 4096), make([]byte, 4096)
	err = dataRanges(int(f.Fd()), 0, st.Size(), func(off, length int64) error {
		for at := off &^ 4095; at < off+length; at += 4096 {
			n, err := f.ReadAt(page, at)
			if n == 0 {
				return err
			}
			if !bytes.Equal(page[:n], zero[:n]) {
				fmt.Fprintf(hash, "%d:%d:", at, n)
				_, _ = hash.Write(page[:n])
			}
		}
		return nil
	})
	require.NoError(t, err)
	return fmt.Sprintf("%x", hash.Sum(nil)[:12])
}

// requireSame fails with the differences only.
func requireSame(t testing.TB, want, got map[string]string, what string) {
	t.Helper()
	var diff []string
	for path, w := range want {
		if g, ok := got[path]; !ok {
			diff = append(diff, fmt.Sprintf("%q is missing: %s", path, w))
		} else if g != w {
			diff = append(diff, fmt.Sprintf("%q\n    was %s\n    is  %s", path, w, g))
		}
	}
	for path, g := range got {
		if _, ok := want[path]; !ok {
			diff = append(diff, fmt.Sprintf("%q is too many: %s", path, g))
		}
	}
	sort.Strings(diff)
	if len(diff) > 12 {
		diff = append(diff[:12], fmt.Sprintf("and %d more", len(diff)-12))
	}
	if len(diff) > 0 {
		t.Fatalf("%s: the tree differs:\n%s", what, strings.Join(diff, "\n"))
	}
}

// mapFile maps a file shared and writable, and returns the mapping and what
// ends it.
func mapFile(t testing.TB, path string, size int) (m []byte, unmap func()) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer closeFD(fd)
	m, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	unmap = sync.OnceFunc(func() { require.NoError(t, unix.Munmap(m)) })
	t.Cleanup(unmap)
	return m, unmap
}

// newTmpfs mounts one.
func newTmpfs(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	return dir
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root and CAP_SYS_ADMIN (mounts, device nodes, trusted attributes): run it as root, see testing/env/install")
	}
}

// write makes a file with its parents.
func write(t testing.TB, path, contents string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(contents), 0o644))
}

func mustCapture(t testing.TB, src, dst, prev string) Stats {
	t.Helper()
	stats, err := Capture(t.Context(), src, dst, prev, Limits{})
	require.NoError(t, err)
	require.NoError(t, stats.PrevError)
	return stats
}

func rollBack(t testing.TB, snapshot, dir string) Stats {
	t.Helper()
	stats, err := Rollback(t.Context(), snapshot, dir)
	require.NoError(t, err)
	return stats
}

func requireIsSame(t testing.TB, want bool, snapshot, dir string) {
	t.Helper()
	same, err := Same(snapshot, dir)
	require.NoError(t, err)
	require.Equal(t, want, same, "Same")
}
