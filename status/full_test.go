package status

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestFullDisk: the status is told when nothing else can be written.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	require.NoError(t, (&Status{ID: "x"}).Write(dir))
	filler := filepath.Join(dir, "filler")
	require.ErrorIs(t, os.WriteFile(filler, make([]byte, 2<<20), 0o600), unix.ENOSPC)
	for _, reason := range []string{"the disk is full", "it is still"} {
		require.NoError(t, (&Status{ID: "x", Reason: reason}).Write(dir))
		s, err := Read(dir)
		require.NoError(t, err)
		require.Equal(t, reason, s.Reason)
	}
	require.NoError(t, os.Remove(filler))
	require.NoError(t, (&Status{ID: "x"}).Write(dir))
	fi, err := os.Stat(filepath.Join(dir, reserveName))
	require.NoError(t, err)
	require.EqualValues(t, reserveSize, fi.Size(), "room is kept again")
}
