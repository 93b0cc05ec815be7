package layer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestWriteTar: what other tools take for the layer is what overlayfs shows.
func TestWriteTar(t *testing.T) {
	upper, snap := t.TempDir(), filepath.Join(t.TempDir(), "snap")
	at := func(name string) string { return filepath.Join(upper, name) }
	require.NoError(t, os.MkdirAll(at("etc/new"), 0o751))
	require.NoError(t, os.WriteFile(at("etc/greeting"), []byte("hello\n"), 0o640))
	require.NoError(t, os.Chown(at("etc/greeting"), 7, 8))
	require.NoError(t, unix.Setxattr(at("etc/greeting"), "user.color", []byte("red"), 0))
	require.NoError(t, os.Link(at("etc/greeting"), at("etc/hello")))
	require.NoError(t, os.Symlink("greeting", at("etc/link")))
	require.NoError(t, unix.Mknod(at("etc/gone"), unix.S_IFCHR, 0))
	require.NoError(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	require.NoError(t, unix.Mkfifo(at("pipe"), 0o600))
	require.NoError(t, os.Mkdir(at("opaque"), 0o700))
	require.NoError(t, unix.Setxattr(at("opaque"), opaqueXattr, []byte("y"), 0))
	f, err := os.Create(at("sparse"))
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("end"), 1<<20)
	require.NoError(t, errors.Join(err, f.Close()))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: at("socket")}))

	d, err := Prepare(snap, "", Limits{})
	require.NoError(t, err)
	_, err = d.Capture(t.Context(), upper)
	require.NoError(t, err)
	linked := filepath.Join(t.TempDir(), "linked")
	require.NoError(t, Link(snap, linked))
	var first, second bytes.Buffer
	require.NoError(t, WriteTar(t.Context(), snap, &first))
	require.NoError(t, os.RemoveAll(snap))
	require.NoError(t, WriteTar(t.Context(), linked, &second))
	require.Equal(t, first.Bytes(), second.Bytes())
	requireTarSize(t, linked, int64(first.Len()))

	headers, bodies := map[string]*tar.Header{}, map[string]string{}
	for tr := tar.NewReader(&first); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		b, err := io.ReadAll(tr)
		require.NoError(t, err)
		headers[h.Name], bodies[h.Name] = h, string(b)
	}
	require.Len(t, headers, 11)
	require.EqualValues(t, 0o751, headers["etc/new/"].Mode)
	// The two names of one inode: one holds it, the other refers to it.
	require.Equal(t, "hello\n", bodies["etc/greeting"])
	require.Equal(t, "red", headers["etc/greeting"].PAXRecords[paxXattr+"user.color"])
	require.Equal(t, []int{7, 8}, []int{headers["etc/greeting"].Uid, headers["etc/greeting"].Gid})
	require.Equal(t, byte(tar.TypeLink), headers["etc/hello"].Typeflag)
	require.Equal(t, "etc/greeting", headers["etc/hello"].Linkname)
	require.Equal(t, "greeting", headers["etc/link"].Linkname)
	require.Equal(t, byte(tar.TypeReg), headers["etc/.wh.gone"].Typeflag, "a whiteout")
	require.Contains(t, headers, "opaque/.wh..wh..opq")
	require.NotContains(t, headers["opaque/"].PAXRecords, paxXattr+opaqueXattr)
	require.EqualValues(t, 3, headers["null"].Devminor)
	require.Equal(t, byte(tar.TypeFifo), headers["pipe"].Typeflag)
	require.Equal(t, strings.Repeat("\x00", 1<<20)+"end", bodies["sparse"])
}

// requireTarSize: the size is known before.
func requireTarSize(t *testing.T, snap string, want int64) {
	t.Helper()
	size, err := TarSize(t.Context(), snap)
	require.NoError(t, err)
	require.Equal(t, want, size)
}

// TestWriteTarOfAnything: whatever an application makes, the tar can be read, links
// lead to what came before, and names and contents are those of the tree.
func TestWriteTarOfAnything(t *testing.T) {
	o := newOverlay(t)
	o.mount()
	m := newMutator(t, o.merged, testSeed(t))
	socket := filepath.Join(o.merged, "socket")
	require.NoError(t, unix.Mknod(socket, unix.S_IFSOCK|0o600, 0))
	require.NoError(t, os.Link(socket, socket+"2"))
	require.NoError(t, os.WriteFile(filepath.Join(o.merged, ".wh..wh..opq"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(o.merged, "attrs"), nil, 0o600))
	require.NoError(t, unix.Setxattr(filepath.Join(o.merged, "attrs"), "user.a=b", []byte("x"), 0))
	m.run(200)
	snap := o.snapshot(1)
	mustCapture(t, o.upper, snap, "")
	// Not kept in memory: a reader gets gigabytes of zeros for holes.
	out, in := io.Pipe()
	defer out.Close()
	written := &tarCounter{}
	go func() { in.CloseWithError(WriteTar(t.Context(), snap, io.MultiWriter(in, written))) }()
	seen := map[string]bool{}
	for tr := tar.NewReader(out); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, out)
			require.NoError(t, err)
			requireTarSize(t, snap, written.bytes)
			break
		}
		require.NoError(t, err)
		name := strings.TrimSuffix(h.Name, "/")
		require.False(t, seen[name], "%q is there twice", name)
		seen[name] = true
		if dir, base := filepath.Split(name); strings.HasPrefix(base, whiteoutPrefix) {
			requireMarked(t, filepath.Join(o.upper, dir), base)
			continue
		}
		st, err := os.Lstat(filepath.Join(o.upper, name))
		require.NoError(t, err)
		require.Zero(t, st.Mode()&os.ModeSocket, "%q can't be in a tar", name)
		if h.Typeflag == tar.TypeLink {
			require.True(t, seen[h.Linkname], "%q is a link to %q, which did not come before", name, h.Linkname)
			there, err := os.Lstat(filepath.Join(o.upper, h.Linkname))
			require.NoError(t, err)
			require.True(t, os.SameFile(st, there))
		} else if h.Typeflag == tar.TypeReg {
			want, err := os.Open(filepath.Join(o.upper, name))
			require.NoError(t, err)
			requireSameBytes(t, name, want, tr)
			require.NoError(t, want.Close())
		}
	}
	require.Greater(t, len(seen), 10)
}

// requireMarked fails unless overlayfs has what a name with whiteoutPrefix stands for.
func requireMarked(t *testing.T, dir, base string) {
	t.Helper()
	if base == opaqueWhiteout {
		var b [1]byte
		n, err := unix.Lgetxattr(dir, opaqueXattr, b[:])
		require.NoError(t, err, dir)
		require.Equal(t, "y", string(b[:n]))
		return
	}
	var st unix.Stat_t
	require.NoError(t, unix.Lstat(filepath.Join(dir, strings.TrimPrefix(base, whiteoutPrefix)), &st), "%q in %q", base, dir)
	require.True(t, st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0, "%q in %q is no whiteout", base, dir)
}

func requireSameBytes(t *testing.T, name string, want, got io.Reader) {
	t.Helper()
	a, b := sha256.New(), sha256.New()
	_, err := io.Copy(a, want)
	_, err2 := io.Copy(b, got)
	require.NoError(t, errors.Join(err, err2))
	require.Equal(t, a.Sum(nil), b.Sum(nil), "contents of %q", name)
}

// TestOverlayOptions: the distribution's defaults for overlayfs do not matter, but
// that a layer can't say what was left elsewhere.
func TestOverlayOptions(t *testing.T) {
	for name, options := range map[string]string{
		"metacopy": "redirect_dir=on,metacopy=on,index=off", "userxattr": "userxattr,index=off",
	} {
		t.Run(name, func(t *testing.T) {
			o := newOverlay(t)
			o.options = options
			o.mount()
			if name != "userxattr" {
				require.NoError(t, os.Rename(filepath.Join(o.merged, "dir5"), filepath.Join(o.merged, "moved")))
				mustCapture(t, o.upper, o.snapshot(9), "")
				require.ErrorIs(t, WriteTar(t.Context(), o.snapshot(9), io.Discard), ErrNoLayer)
			}
			m := newMutator(t, o.merged, testSeed(t))
			m.run(30)
			for round := 1; round <= 4; round++ {
				mustCapture(t, o.upper, o.snapshot(round), "")
				// The number of a symbolic link that was copied up changes with the next mount if
				// only user attributes, which it can't have, may say where it is from.
				o.unmount()
				o.mount()
				view := describe(t, o.merged, false)
				m.run(15)
				o.restore(round)
				requireSame(t, view, describe(t, o.merged, false), fmt.Sprint("round ", round))
			}
		})
	}
}

func TestLinkOfNothing(t *testing.T) {
	err := Link(filepath.Join(t.TempDir(), "snap"), filepath.Join(t.TempDir(), "linked"))
	require.ErrorIs(t, err, ErrNoSnapshot)
	require.ErrorIs(t, err, os.ErrNotExist)
}
