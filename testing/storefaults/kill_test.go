package storefaults

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestShimKilled: a shim that is killed at any moment of a publication leaves
// the images before it whole, and the next container of the name clears up what
// it left.
func TestShimKilled(t *testing.T) {
	r := newRig(t)
	before := r.blobs()
	rng := rand.New(rand.NewPCG(1, 1))
	for range 3 {
		r.run()
		r.awaitImages(2)
		// A publication takes some tens of milliseconds, and one is always under way.
		time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
		shim, err := r.e.Shim(r.id)
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(shim, syscall.SIGKILL))
		dir := filepath.Dir(r.e.StatusFile(r.id))
		require.Eventually(t, func() bool {
			_, err := os.Lstat(dir)
			return os.IsNotExist(err)
		}, patience, 10*time.Millisecond, "the daemon calls the shim's delete action")
		r.requireImages()
		require.NoError(t, r.e.DeleteContainer(t.Context(), r.id))
	}
	r.run()
	r.awaitImages(1)
	r.crash()
	r.e.MustCtr(t, "task", "rm", "--force", r.id)
	r.requireImages()
	r.requireTidy(before)
}

// TestDaemonKilled: containerd is killed at any moment of a publication; the
// container is protected meanwhile, and images go on when it is back.
func TestDaemonKilled(t *testing.T) {
	r := newRig(t)
	before := r.blobs()
	r.run("publish-keep", "1000") // none goes while it is looked at
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3 {
		r.awaitImages(2)
		time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
		require.NoError(t, r.e.RestartDaemon(t.Context(), true))
		r.requireImages()
		r.crash()
	}
	s := r.awaitImages(1)
	require.True(t, s.Protected)
	require.Empty(t, s.Images.LastError)
	r.e.MustCtr(t, "task", "rm", "--force", r.id)
	r.requireTidy(before)
}
