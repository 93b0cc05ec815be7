package layer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// overlay is a real one, as a snapshotter makes it.
type overlay struct {
	t                          testing.TB
	lower, upper, work, merged string
	snapshots, options         string
	mounted                    bool
}

func newOverlay(t testing.TB) *overlay {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	o := &overlay{
		t: t, lower: filepath.Join(dir, "lower"), upper: filepath.Join(dir, "upper"),
		work: filepath.Join(dir, "work"), merged: filepath.Join(dir, "merged"),
		snapshots: filepath.Join(dir, "snapshots"), options: "index=off,redirect_dir=off",
	}
	for _, d := range []string{o.lower, o.upper, o.work, o.merged, o.snapshots} {
		require.NoError(t, os.Mkdir(d, 0o755))
	}
	o.fillLower()
	t.Cleanup(func() {
		if o.mounted {
			o.unmount()
		}
	})
	return o
}

func (o *overlay) fillLower() {
	for d := range 6 {
		for f := range 6 {
			write(o.t, fmt.Sprintf("%s/dir%d/sub/file%d", o.lower, d, f), fmt.Sprintf("lower %d %d", d, f))
			write(o.t, fmt.Sprintf("%s/dir%d/file%d", o.lower, d, f), fmt.Sprintf("lower %d %d", d, f))
		}
	}
	write(o.t, o.lower+"/big", string(make([]byte, 300_000)))
	require.NoError(o.t, os.Symlink("dir0/file0", o.lower+"/link"))
}

func (o *overlay) mount() {
	o.t.Helper()
	options := fmt.Sprintf("%s,lowerdir=%s,upperdir=%s,workdir=%s", o.options, o.lower, o.upper, o.work)
	require.NoError(o.t, unix.Mount("overlay", o.merged, "overlay", 0, options))
	o.mounted = true
}

func (o *overlay) unmount() {
	o.t.Helper()
	require.NoError(o.t, unix.Unmount(o.merged, 0))
	o.mounted = false
}

func (o *overlay) snapshot(n int) string { return filepath.Join(o.snapshots, fmt.Sprint(n)) }

// restore rolls back as a recovery does, with the overlay unmounted. A second
// rollback must find nothing to do. (A mounted overlayfs may: it drops stale
// "impure" marks when a directory is listed.)
func (o *overlay) restore(n int) Stats {
	o.t.Helper()
	o.unmount()
	stats := rollBack(o.t, o.snapshot(n), o.upper)
	requireIsSame(o.t, true, o.snapshot(n), o.upper)
	untouched := describe(o.t, o.upper, true)
	again := rollBack(o.t, o.snapshot(n), o.upper)
	require.Zero(o.t, again.Created+again.Removed+again.Repaired, "a second rollback has nothing to do")
	requireSame(o.t, untouched, describe(o.t, o.upper, true), "second rollback")
	o.mount()
	return stats
}
