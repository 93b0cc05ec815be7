package storefaults

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/status"
)

// TestFullDisk: the disk of the checkpoints fills up. Images stop first, then
// checkpoints; the container serves all the time, the status says what is the
// matter, and all comes back when there is room again.
func TestFullDisk(t *testing.T) {
	r := newRig(t)
	require.NoError(t, unix.Mount("tmpfs", r.e.StateDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=160m,mode=700"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(r.e.StateDir, unix.MNT_DETACH)) })
	t.Cleanup(func() { require.NoError(t, r.e.DeleteContainer(context.Background(), r.id)) })
	r.run()
	r.awaitImages(1)

	filler := filepath.Join(r.e.StateDir, "filler")
	fill(t, filler, 40<<20)
	s := r.await("the end of publishing", func(s *status.Status) bool { return s.Images.LastError != "" })
	require.Contains(t, s.Images.LastError, "the disk is nearly full")
	require.NotNil(t, s.Images.RetryAt)
	r.crash()
	require.NoError(t, os.Remove(filler))
	r.awaitImages(1)

	fill(t, filler, 0)
	s = r.await("the reason", func(s *status.Status) bool { return s.Checkpoints.LastError != "" || s.Reason != "" })
	t.Logf("protected %t, reason %q, last failure %q", s.Protected, s.Reason, s.Checkpoints.LastError)
	require.Contains(t, s.Checkpoints.LastError+s.Reason, "no space left on device")
	_, state, err := r.e.Task(t.Context(), r.id)
	require.NoError(t, err)
	require.Equal(t, "RUNNING", state)
	require.Equal(t, "PONG\n", r.e.MustCtr(t, "task", "exec", "--exec-id", "ping", r.id, "redis-cli", "ping"))
	require.NoError(t, os.Remove(filler))
	freed := time.Now()
	r.await("checkpoints", func(s *status.Status) bool {
		return s.Protected && s.Checkpoints.LastError == "" && s.Checkpoints.Last.Time.After(freed)
	})
	r.crash()
	r.awaitImages(1)
}

// fill takes the disk's room but for some bytes, while others write to it too.
func fill(t *testing.T, path string, leave int64) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) >= 1<<10; {
		var st unix.Statfs_t
		require.NoError(t, unix.Fstatfs(int(f.Fd()), &st))
		if leave > 0 && int64(st.Bavail)*st.Bsize <= leave {
			return
		}
		if _, err := f.Write(chunk); err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			chunk = chunk[:len(chunk)/2]
		}
	}
}
