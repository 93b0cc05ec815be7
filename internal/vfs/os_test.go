package vfs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestFilesAndDirectoriesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	require.NoError(t, OS().MkdirAll(dir))
	st, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm())

	path := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	f, err := OS().Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	st, err = os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())

	require.NoError(t, os.Chmod(dir, 0o770))
	require.ErrorIs(t, OS().MkdirAll(dir), ErrUnsafeDir)
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chmod(dir, 0o700))
		require.NoError(t, os.Chown(dir, 1234, 1234))
		require.ErrorIs(t, OS().MkdirAll(dir), ErrUnsafeDir)
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	top := t.TempDir()
	victim := filepath.Join(top, "victim")
	require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o600))
	dir := filepath.Join(top, "d")
	require.NoError(t, OS().MkdirAll(dir))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(victim, link))
	for _, open := range []func(string) (File, error){OS().Create, OS().Open, OS().OpenWrite} {
		_, err := open(link)
		require.ErrorIs(t, err, ErrNotRegular)
	}

	// A directory that is a link is refused as well.
	linked := filepath.Join(top, "linked")
	require.NoError(t, os.Symlink(dir, linked))
	require.Error(t, OS().MkdirAll(linked))
	_, err := OS().Create(filepath.Join(linked, "f"))
	require.Error(t, err)
	_, err = OS().List(linked)
	require.Error(t, err)
	_, err = OS().Lock(linked)
	require.Error(t, err)

	// Removing and renaming concern the link, not what it points to.
	require.NoError(t, OS().Rename(link, link+"2"))
	require.NoError(t, OS().Remove(link+"2"))
	b, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "precious", string(b))
}

func TestPipesAreRefusedWithoutWaiting(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	require.NoError(t, OS().MkdirAll(dir))
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	for _, open := range []func(string) (File, error){OS().Create, OS().Open, OS().OpenWrite} {
		_, err := open(pipe)
		require.ErrorIs(t, err, ErrNotRegular)
	}
}
