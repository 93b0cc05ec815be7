package layer

import (
	"archive/tar"
	"bytes"
	"errors"
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

func TestLinkOfNothing(t *testing.T) {
	err := Link(filepath.Join(t.TempDir(), "snap"), filepath.Join(t.TempDir(), "linked"))
	require.ErrorIs(t, err, ErrNoSnapshot)
	require.ErrorIs(t, err, os.ErrNotExist)
}
