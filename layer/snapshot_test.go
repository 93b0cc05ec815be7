package layer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestSyncMergesPacks(t *testing.T) {
	o := newOverlay(t)
	prev := ""
	most := 0
	for i := range 40 {
		write(t, fmt.Sprintf("%s/keep%d", o.upper, i), strings.Repeat(fmt.Sprint(i), 5000))
		write(t, o.upper+"/hot", strings.Repeat(fmt.Sprint(i), 900_000))
		if i%3 == 0 {
			settle(t)
		}
		mustCapture(t, o.upper, o.snapshot(i), prev)
		view := describe(t, o.upper, false)
		require.NoError(t, Sync(o.snapshot(i)))
		require.NoError(t, Sync(o.snapshot(i)), "again")
		require.FileExists(t, o.snapshot(i)+"/"+syncedName)
		packs, err := filepath.Glob(o.snapshot(i) + "/pack.*")
		require.NoError(t, err)
		most = max(most, len(packs))
		var size int64
		for _, p := range packs {
			st, err := os.Stat(p)
			require.NoError(t, err)
			size += st.Size()
		}
		require.Less(t, size, int64(2*maxDeadBytes+2*2_400_000))
		if prev != "" {
			require.NoError(t, os.RemoveAll(prev))
		}
		prev = o.snapshot(i)
		if i%5 == 4 {
			requireIsSame(t, true, prev, o.upper)
			require.NoError(t, os.RemoveAll(o.upper+"/keep0"))
			require.NoError(t, os.RemoveAll(o.upper+"/hot"))
			rollBack(t, prev, o.upper)
			requireSame(t, view, describe(t, o.upper, false), "after rollback")
		}
	}
	require.LessOrEqual(t, most, manyPacks+1)
	require.Greater(t, most, 1)
}

// TestSyncBeside lets the next capture and a rollback use a snapshot while Sync
// merges its packs.
func TestSyncBeside(t *testing.T) {
	o := newOverlay(t)
	prev := ""
	n := 0
	next := func() string { n++; return o.snapshot(n) }
	for range 15 {
		for range manyPacks + 2 {
			write(t, fmt.Sprintf("%s/f%d", o.upper, n), strings.Repeat(fmt.Sprint(n), 50_000))
			dst := next()
			mustCapture(t, o.upper, dst, prev)
			prev = dst
		}
		view := describe(t, o.upper, false)
		var wg sync.WaitGroup
		var syncErr error
		wg.Go(func() { syncErr = Sync(prev) })
		dst := next()
		mustCapture(t, o.upper, dst, prev)
		require.NoError(t, os.Remove(fmt.Sprintf("%s/f%d", o.upper, n-3)))
		rollBack(t, prev, o.upper)
		requireSame(t, view, describe(t, o.upper, false), "rolled back beside Sync")
		wg.Wait()
		require.NoError(t, syncErr)
		require.NoError(t, os.Remove(fmt.Sprintf("%s/f%d", o.upper, n-3)))
		rollBack(t, dst, o.upper)
		requireSame(t, view, describe(t, o.upper, false), "rolled back to what was captured beside Sync")
		prev = dst
	}
}

func TestDamagedSnapshot(t *testing.T) {
	o := newOverlay(t)
	write(t, o.upper+"/file", strings.Repeat("contents", 1000))
	snapshot := o.snapshot(1)
	mustCapture(t, o.upper, snapshot, "")
	write(t, o.upper+"/file", "changed")
	view := describe(t, o.upper, true)
	damage := map[string]struct {
		do   func(dir string)
		want error
	}{
		"no manifest":    {func(d string) { require.NoError(t, os.Remove(d+"/manifest")) }, ErrNoSnapshot},
		"bit":            {func(d string) { flip(t, d+"/manifest", 90) }, ErrCorrupt},
		"half":           {func(d string) { require.NoError(t, os.Truncate(d+"/manifest", 100)) }, ErrCorrupt},
		"short pack":     {func(d string) { require.NoError(t, os.Truncate(d+"/pack.00000001", 7999)) }, ErrCorrupt},
		"open to others": {func(d string) { require.NoError(t, os.Chmod(d, 0o711)) }, ErrUnsafeDir},
		"gone":           {func(d string) { require.NoError(t, os.RemoveAll(d)) }, ErrNoSnapshot},
		"version":        {func(d string) { newVersion(t, d+"/manifest") }, ErrUnsupportedVersion},
		"other boot":     {func(d string) { otherBoot(t, d+"/manifest") }, ErrNotDurable},
	}
	for name, c := range damage {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "s")
			require.NoError(t, os.CopyFS(dir, os.DirFS(snapshot)))
			require.NoError(t, os.Chmod(dir, 0o700))
			c.do(dir)
			_, err := Rollback(t.Context(), dir, o.upper)
			require.ErrorIs(t, err, c.want)
			_, err = Same(dir, o.upper)
			require.ErrorIs(t, err, c.want)
			require.ErrorIs(t, Sync(dir), c.want)
			requireSame(t, view, describe(t, o.upper, true), "nothing may be touched")

			dst := filepath.Join(t.TempDir(), "next")
			stats, err := Capture(t.Context(), o.upper, dst, dir, Limits{})
			require.NoError(t, err)
			require.ErrorIs(t, stats.PrevError, c.want)
			requireIsSame(t, true, dst, o.upper)
		})
	}
}

// TestLostIdentity is the state after a host crash: nothing may be believed but
// the bytes.
func TestLostIdentity(t *testing.T) {
	o := newOverlay(t)
	o.mount()
	m := newMutator(t, o.merged, 11)
	m.run(100)
	mustCapture(t, o.upper, o.snapshot(1), "")
	require.NoError(t, Sync(o.snapshot(1)))
	view := describe(t, o.merged, false)
	for round, lose := range []func(){
		func() { otherBoot(t, o.snapshot(1)+"/identity") },
		func() { require.NoError(t, os.Remove(o.snapshot(1)+"/identity")) },
		func() { flip(t, o.snapshot(1)+"/identity", 70) },
		func() { require.NoError(t, os.Truncate(o.snapshot(1)+"/identity", 0)) },
		func() { otherBoot(t, o.snapshot(1)+"/manifest") },
	} {
		m.run(30)
		lose()
		o.restore(1)
		requireSame(t, view, describe(t, o.merged, false), fmt.Sprint("round ", round))
		lose()
		before := describe(t, o.upper, true)
		stats := o.restore(1)
		if round == 0 || round == 4 {
			require.Zero(t, stats.Created+stats.Repaired+stats.Removed)
			requireSame(t, before, describe(t, o.upper, true), "bytes were equal: not touched")
		}
	}
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	b[at] ^= 0x10
	require.NoError(t, os.WriteFile(path, b, 0o600))
}

func reseal(t *testing.T, path string, edit func(b []byte)) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	edit(b)
	sealChecksum(b)
	require.NoError(t, os.WriteFile(path, b, 0o600))
}

func newVersion(t *testing.T, path string) { reseal(t, path, func(b []byte) { b[8]++ }) }
func otherBoot(t *testing.T, path string)  { reseal(t, path, func(b []byte) { b[20] ^= 0xff }) }

// TestSnapshotIsNeverWritten rolls back again and again, with the files in the
// tree being written to, and compares the packs.
func TestSnapshotIsNeverWritten(t *testing.T) {
	o := newOverlay(t)
	write(t, o.upper+"/a", strings.Repeat("a", 300_000))
	write(t, o.upper+"/b", "b")
	mustCapture(t, o.upper, o.snapshot(1), "")
	pack, err := os.ReadFile(o.snapshot(1) + "/pack.00000001")
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, os.Remove(o.upper+"/a"))
		rollBack(t, o.snapshot(1), o.upper)
		write(t, o.upper+"/a", "overwritten")
		write(t, o.upper+"/b", "overwritten")
		var st unix.Stat_t
		require.NoError(t, unix.Stat(o.upper+"/a", &st))
		require.EqualValues(t, 1, st.Nlink)
	}
	after, err := os.ReadFile(o.snapshot(1) + "/pack.00000001")
	require.NoError(t, err)
	require.True(t, bytes.Equal(pack, after))
	st, err := os.Stat(o.snapshot(1))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm())
}

// TestLinksAreNotFollowed puts links where the snapshot has directories and
// files, towards something outside that must not change.
func TestLinksAreNotFollowed(t *testing.T) {
	o := newOverlay(t)
	outside := t.TempDir()
	write(t, outside+"/dir/file", "outside")
	write(t, outside+"/file", "outside")
	write(t, o.upper+"/dir/file", "inside")
	write(t, o.upper+"/dir/more/file", "inside")
	write(t, o.upper+"/file", "inside")
	require.NoError(t, os.Symlink(outside, o.upper+"/link"))
	mustCapture(t, o.upper, o.snapshot(1), "")
	want, view := describe(t, outside, true), describe(t, o.upper, false)
	for range 2 {
		require.NoError(t, os.RemoveAll(o.upper+"/dir"))
		require.NoError(t, os.Symlink(outside+"/dir", o.upper+"/dir"))
		require.NoError(t, os.Remove(o.upper+"/file"))
		require.NoError(t, os.Symlink(outside+"/file", o.upper+"/file"))
		require.NoError(t, os.MkdirAll(o.upper+"/extra", 0o755))
		require.NoError(t, os.Symlink(outside, o.upper+"/extra/link"))
		require.NoError(t, os.Remove(o.upper+"/link"))
		require.NoError(t, os.Mkdir(o.upper+"/link", 0o700))
		requireIsSame(t, false, o.snapshot(1), o.upper)
		rollBack(t, o.snapshot(1), o.upper)
		requireSame(t, view, describe(t, o.upper, false), "tree")
		requireSame(t, want, describe(t, outside, true), "outside")
	}
	_, err := Capture(t.Context(), o.upper+"/link", o.snapshot(2), "", Limits{})
	require.Error(t, err, "a link is no tree")
	require.NoDirExists(t, o.snapshot(2))
}
