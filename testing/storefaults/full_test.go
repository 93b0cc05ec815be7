package storefaults

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/status"
)

// TestFullDisk: the disk of the checkpoints fills up, and they are written to it.
// Images stop first, then checkpoints; the container serves all the time, the
// status says what is the matter, and all comes back when there is room again.
func TestFullDisk(t *testing.T) {
	r := newRig(t)
	filler := r.smallDisk()
	r.run("checkpoint-memory", "off")
	r.awaitImages(1)

	fill(t, filler, 40<<20)
	r.awaitNoImages()
	r.crash()
	require.NoError(t, os.Remove(filler))
	r.awaitImages(1)

	fill(t, filler, 0)
	s := r.await("the reason", func(s *status.Status) bool { return s.Checkpoints.LastError != "" || s.Reason != "" })
	t.Logf("protected %t, reason %q, last failure %q", s.Protected, s.Reason, s.Checkpoints.LastError)
	require.Contains(t, strings.ToLower(s.Checkpoints.LastError+s.Reason), "no space left on device") // CRIU says No
	r.requireServes()
	require.NoError(t, os.Remove(filler))
	freed := time.Now()
	r.await("checkpoints", func(s *status.Status) bool {
		return s.Protected && s.Checkpoints.LastError == "" && s.Checkpoints.Last.Time.After(freed)
	})
	r.crash()
	r.awaitImages(1)
}

// TestFullDiskMemory: checkpoints that are in memory go on when the disk is
// nearly full; images stop until there is room again.
func TestFullDiskMemory(t *testing.T) {
	r := newRig(t)
	filler := r.smallDisk()
	r.run()
	r.awaitImages(1)

	fill(t, filler, 8<<20) // a journal segment begun now has room
	before := r.awaitNoImages()
	s := r.await("checkpoints", func(s *status.Status) bool { return s.Checkpoints.Count >= before.Checkpoints.Count+3 })
	require.True(t, s.Protected, s.Reason)
	require.Empty(t, s.Checkpoints.LastError)
	require.Equal(t, "memory", s.Checkpoints.Last.Place, s.Checkpoints.Last.PlaceReason)
	require.Equal(t, before.Images.Count, s.Images.Count)
	r.requireServes()
	r.crash()
	require.NoError(t, os.Remove(filler))
	r.awaitImages(1)
}

// smallDisk gives the environment's state a disk of its own. It returns the name
// of a file that may take its room.
func (r *rig) smallDisk() string {
	r.t.Helper()
	require.NoError(r.t, unix.Mount("tmpfs", r.e.StateDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=160m,mode=700"))
	r.t.Cleanup(func() { require.NoError(r.t, unix.Unmount(r.e.StateDir, unix.MNT_DETACH)) })
	r.t.Cleanup(func() { require.NoError(r.t, r.e.DeleteContainer(context.Background(), r.id)) })
	return filepath.Join(r.e.StateDir, "filler")
}

// awaitNoImages waits until images stop because the disk is nearly full.
func (r *rig) awaitNoImages() *status.Status {
	r.t.Helper()
	s := r.await("the end of publishing", func(s *status.Status) bool { return s.Images.LastError != "" })
	require.Contains(r.t, s.Images.LastError, "the disk is nearly full")
	require.NotNil(r.t, s.Images.RetryAt)
	return s
}

func (r *rig) requireServes() {
	r.t.Helper()
	_, state, err := r.e.Task(r.t.Context(), r.id)
	require.NoError(r.t, err)
	require.Equal(r.t, "RUNNING", state)
	require.Equal(r.t, "PONG\n", r.e.MustCtr(r.t, "task", "exec", "--exec-id", "ping", r.id, "redis-cli", "ping"))
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
