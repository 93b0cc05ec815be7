package vfs

import (
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestContract runs the same operations on all implementations.
func TestContract(t *testing.T) {
	pass := func(Op) error { return nil }
	for name, fsys := range map[string]FS{
		"os":    OS(),
		"mem":   NewMem(),
		"fault": NewFault(NewMem(), pass),
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			require.NoError(t, fsys.MkdirAll(dir))
			require.NoError(t, fsys.MkdirAll(dir), "again")
			contractFile(t, fsys, dir)
			contractNames(t, fsys, dir)
			contractLock(t, fsys, dir)
		})
	}
}

func contractFile(t *testing.T, fsys FS, dir string) {
	path := filepath.Join(dir, "file")
	_, err := fsys.Open(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = fsys.OpenWrite(path)
	require.ErrorIs(t, err, fs.ErrNotExist)

	f, err := fsys.Create(path)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("world"), 6)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("hello "), 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	requireContent(t, fsys, path, "hello world")

	require.NoError(t, f.Preallocate(14))
	require.NoError(t, f.Preallocate(3), "it never shrinks")
	requireContent(t, fsys, path, "hello world\x00\x00\x00")
	require.NoError(t, f.Truncate(5))
	require.NoError(t, f.Truncate(8))
	requireContent(t, fsys, path, "hello\x00\x00\x00")
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Close(), fs.ErrClosed)
	_, err = f.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, fs.ErrClosed)

	r, err := fsys.Open(path)
	require.NoError(t, err)
	_, err = r.WriteAt([]byte("x"), 0)
	require.Error(t, err, "opened for reading")
	require.NoError(t, r.Close())

	w, err := fsys.OpenWrite(path)
	require.NoError(t, err)
	_, err = w.WriteAt([]byte("J"), 0)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	requireContent(t, fsys, path, "Jello\x00\x00\x00")

	f, err = fsys.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	requireContent(t, fsys, path, "")
}

func contractNames(t *testing.T, fsys FS, dir string) {
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"z", "x"} {
		f, err := fsys.Create(path(name))
		require.NoError(t, err)
		_, err = f.WriteAt([]byte(name), 0)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	requireNames(t, fsys, dir, "file", "x", "z")
	require.NoError(t, fsys.Rename(path("z"), path("x")))
	requireNames(t, fsys, dir, "file", "x")
	requireContent(t, fsys, path("x"), "z")
	require.ErrorIs(t, fsys.Rename(path("z"), path("y")), fs.ErrNotExist)
	require.NoError(t, fsys.SyncDir(dir))
	require.ErrorIs(t, fsys.Remove(path("z")), fs.ErrNotExist)
	require.Error(t, fsys.Remove(dir), "it is not empty")
	require.NoError(t, fsys.Remove(path("x")))
	require.NoError(t, fsys.Remove(path("file")))
	requireNames(t, fsys, dir)
}

func contractLock(t *testing.T, fsys FS, dir string) {
	lock, err := fsys.Lock(dir)
	require.NoError(t, err)
	_, err = fsys.Lock(dir)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, lock.Close())
	lock, err = fsys.Lock(dir)
	require.NoError(t, err)
	require.NoError(t, lock.Close())
	require.NoError(t, fsys.Remove(dir))
	_, err = fsys.List(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, fsys.SyncDir(dir), fs.ErrNotExist)
	_, err = fsys.Lock(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = fsys.Create(filepath.Join(dir, "x"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func requireNames(t *testing.T, fsys FS, dir string, want ...string) {
	t.Helper()
	got, err := fsys.List(dir)
	require.NoError(t, err)
	require.ElementsMatch(t, want, got)
}

func requireContent(t *testing.T, fsys FS, path, want string) {
	t.Helper()
	f, err := fsys.Open(path)
	require.NoError(t, err)
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	if size > 0 {
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	require.Equal(t, want, string(b))
}
