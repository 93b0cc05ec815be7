package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestOverlayOperations goes through what overlayfs makes of operations, one by
// one and by name.
func TestOverlayOperations(t *testing.T) {
	steps := map[string]func(t *testing.T, merged string){
		"nothing": func(*testing.T, string) {},
		"new files": func(t *testing.T, d string) {
			write(t, d+"/new/deep/file", "x")
		},
		"modify lower file": func(t *testing.T, d string) { write(t, d+"/dir0/file0", "changed") },
		"delete lower files": func(t *testing.T, d string) {
			require.NoError(t, os.Remove(d+"/dir0/file0"))
			require.NoError(t, os.RemoveAll(d+"/dir1"))
		},
		"opaque directory": func(t *testing.T, d string) {
			require.NoError(t, os.RemoveAll(d+"/dir0"))
			require.NoError(t, os.Mkdir(d+"/dir0", 0o700))
		},
		"exchange of file and directory": func(t *testing.T, d string) {
			require.NoError(t, os.RemoveAll(d+"/dir0"))
			write(t, d+"/dir0", "file")
			require.NoError(t, os.Remove(d+"/big"))
			write(t, d+"/big/file", "x")
		},
		"chmod lower": func(t *testing.T, d string) { require.NoError(t, unix.Chmod(d+"/dir2/file2", 0o4755)) },
		"link lower":  func(t *testing.T, d string) { require.NoError(t, os.Link(d+"/dir3/file3", d+"/again")) },
		"rename over": func(t *testing.T, d string) { require.NoError(t, os.Rename(d+"/dir4/file0", d+"/dir4/file1")) },
		"sparse": func(t *testing.T, d string) {
			write(t, d+"/sparse", "start")
			require.NoError(t, os.Truncate(d+"/sparse", 1<<30))
		},
	}
	impossible := map[string]bool{ // the first took away what the second needs
		"delete lower files then delete lower files":                         true,
		"rename over then rename over":                                       true,
		"link lower then link lower":                                         true,
		"exchange of file and directory then delete lower files":             true,
		"exchange of file and directory then modify lower file":              true,
		"exchange of file and directory then exchange of file and directory": true,
		"opaque directory then delete lower files":                           true,
	}
	for first, prepare := range steps {
		for second, damage := range steps {
			if impossible[first+" then "+second] {
				continue
			}
			t.Run(first+" then "+second, func(t *testing.T) {
				o := newOverlay(t)
				o.mount()
				prepare(t, o.merged)
				mustCapture(t, o.upper, o.snapshot(1), "")
				view := describe(t, o.merged, false)
				damage(t, o.merged)
				o.restore(1)
				requireSame(t, view, describe(t, o.merged, false), "after rollback")
			})
		}
	}
}

func TestCostIsWhatChanged(t *testing.T) {
	o := newOverlay(t)
	for i := range 300 {
		write(t, fmt.Sprintf("%s/d%d/f%d", o.upper, i%7, i), fmt.Sprint("contents ", i))
	}
	settle(t)
	first := mustCapture(t, o.upper, o.snapshot(1), "")
	require.Equal(t, 300, first.Copied)
	second := mustCapture(t, o.upper, o.snapshot(2), o.snapshot(1))
	require.Zero(t, second.Copied)
	require.Zero(t, second.CopiedBytes)
	require.Equal(t, first.Bytes, second.Bytes)

	write(t, o.upper+"/d3/f3", "changed")
	third := mustCapture(t, o.upper, o.snapshot(3), o.snapshot(2))
	require.Equal(t, 1, third.Copied)
	require.Equal(t, int64(7), third.CopiedBytes)
	view := describe(t, o.upper, false)

	// Each snapshot stands alone.
	require.NoError(t, os.RemoveAll(o.snapshot(1)))
	require.NoError(t, os.RemoveAll(o.snapshot(2)))
	require.NoError(t, os.RemoveAll(o.upper+"/d2"))
	rolled := rollBack(t, o.snapshot(3), o.upper)
	requireSame(t, view, describe(t, o.upper, false), "after rollback")
	require.Equal(t, 43, rolled.Copied)

	// What was rolled back is known to be unchanged.
	fourth := mustCapture(t, o.upper, o.snapshot(4), o.snapshot(3))
	require.Zero(t, fourth.Copied)
}

// settle makes times that were just set distinguishable on every kernel.
func settle(t testing.TB) { time.Sleep(20 * time.Millisecond) }

// TestRewriteWithinATick changes bytes, not size, right after a capture, and
// sets mtime back.
func TestRewriteWithinATick(t *testing.T) {
	o := newOverlay(t)
	path := o.upper + "/f"
	prev := ""
	for i := range 300 {
		write(t, path, fmt.Sprintf("%04d", i))
		stamp := unix.NsecToTimespec(1e18)
		require.NoError(t, unix.UtimesNano(path, []unix.Timespec{stamp, stamp}))
		mustCapture(t, o.upper, o.snapshot(i), prev)
		prev = o.snapshot(i)
		require.NoError(t, os.WriteFile(path, []byte("xxxx"), 0))
		require.NoError(t, unix.UtimesNano(path, []unix.Timespec{stamp, stamp}))
		requireIsSame(t, false, prev, o.upper)
		rollBack(t, prev, o.upper)
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%04d", i), string(b))
	}
}

// TestMappedFile stores to a shared mapping between captures, which leaves no
// trace in the file's times.
func TestMappedFile(t *testing.T) {
	dirs := map[string]func(testing.TB) string{
		"disk":  func(t testing.TB) string { return newOverlay(t).upper },
		"tmpfs": newTmpfs,
	}
	for name, newDir := range dirs {
		t.Run(name, func(t *testing.T) {
			dir, snapshots := newDir(t), t.TempDir()
			path := dir + "/mapped"
			write(t, path, strings.Repeat("-", 8192))
			settle(t)
			m, unmap := mapFile(t, path, 8192)
			_ = m[0] // on tmpfs this makes the page writable for good
			m[4096] = 1
			settle(t)
			prev := ""
			for i := range byte(20) {
				m[4096] = i
				if i == 10 {
					require.NoError(t, unix.Msync(m, unix.MS_SYNC)) // clean again
				}
				snapshot := fmt.Sprintf("%s/%d", snapshots, i)
				mustCapture(t, dir, snapshot, prev)
				prev = snapshot
				m[4096] = 255
				requireIsSame(t, false, snapshot, dir)
				if i%4 == 3 { // dead tasks have no mappings
					unmap()
					rollBack(t, snapshot, dir)
					m, unmap = mapFile(t, path, 8192)
					require.Equal(t, i, m[4096])
				}
			}
			unmap()
		})
	}
}

func TestFlags(t *testing.T) {
	o := newOverlay(t)
	write(t, o.upper+"/dir/immutable", "1")
	write(t, o.upper+"/append", "2")
	set := func(name string, flags uint8) {
		require.NoError(t, restoreFlags(unix.AT_FDCWD, name, flags))
	}
	t.Chdir(o.upper)
	set("append", flagAppend)
	require.NoError(t, os.Link("dir/immutable", "second"))
	dir, err := openDir(unix.AT_FDCWD, "dir")
	require.NoError(t, err)
	require.NoError(t, restoreFlags(dir, "immutable", flagImmutable))
	closeFD(dir)
	set("dir", flagImmutable)
	t.Cleanup(func() {
		for _, f := range []string{"append", "dir", "second", "extra"} {
			_ = restoreFlags(unix.AT_FDCWD, f, 0)
		}
	})
	stats := mustCapture(t, o.upper, o.snapshot(1), "")
	require.Equal(t, 4, stats.Flagged)
	view := describe(t, o.upper, false)

	set("dir", 0)
	require.NoError(t, os.Rename("dir", "extra"))
	set("extra", flagImmutable)
	f, err := os.OpenFile("append", os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("more")
	require.NoError(t, errors.Join(err, f.Close()))
	rollBack(t, o.snapshot(1), o.upper)
	requireSame(t, view, describe(t, o.upper, false), "after rollback")
}

// TestChangeOfOwner takes back what a change of owner, and writing, clear on the
// way.
func TestChangeOfOwner(t *testing.T) {
	o := newOverlay(t)
	capability := []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, name := range []string{"owner", "contents", "gone", "set-user-ID"} {
		write(t, o.upper+"/"+name, "program")
		if name != "set-user-ID" {
			require.NoError(t, unix.Setxattr(o.upper+"/"+name, "security.capability", capability, 0))
		}
		require.NoError(t, unix.Chmod(o.upper+"/"+name, 0o6755))
	}
	mustCapture(t, o.upper, o.snapshot(1), "")
	view := describe(t, o.upper, false)
	require.NoError(t, os.Chown(o.upper+"/owner", 5, 5))
	require.NoError(t, unix.Setxattr(o.upper+"/owner", "security.capability", capability, 0))
	require.NoError(t, unix.Chmod(o.upper+"/owner", 0o6755))
	require.NoError(t, os.Chown(o.upper+"/set-user-ID", 5, 5))
	require.NoError(t, unix.Chmod(o.upper+"/set-user-ID", 0o6755))
	write(t, o.upper+"/contents", "PROGRAM")
	require.NoError(t, os.Remove(o.upper+"/gone"))
	rollBack(t, o.snapshot(1), o.upper)
	requireSame(t, view, describe(t, o.upper, false), "after rollback")
}

func TestMountPointsAreLeftAlone(t *testing.T) {
	dir := newTmpfs(t)
	write(t, dir+"/file", "x")
	require.NoError(t, os.MkdirAll(dir+"/pts/hidden", 0o755))
	mountOn := func() {
		require.NoError(t, unix.Mount("tmpfs", dir+"/pts", "tmpfs", 0, ""))
	}
	mountOn()
	t.Cleanup(func() { _ = unix.Unmount(dir+"/pts", 0) })
	write(t, dir+"/pts/inside", "not ours")
	snapshot := filepath.Join(t.TempDir(), "s")
	stats := mustCapture(t, dir, snapshot, "")
	require.Equal(t, 1, stats.Mounts)
	require.Equal(t, 3, stats.Entries)

	write(t, dir+"/pts/inside", "changed")
	write(t, dir+"/file", "changed")
	rollBack(t, snapshot, dir)
	b, err := os.ReadFile(dir + "/pts/inside")
	require.NoError(t, err)
	require.Equal(t, "changed", string(b))
	requireIsSame(t, true, snapshot, dir)

	require.NoError(t, unix.Unmount(dir+"/pts", 0))
	rollBack(t, snapshot, dir)
	require.DirExists(t, dir+"/pts/hidden", "what was under the mount")
	require.NoError(t, os.RemoveAll(dir+"/pts"))
	rollBack(t, snapshot, dir)
	require.DirExists(t, dir+"/pts", "a place to mount on")
}

func TestDeepTree(t *testing.T) {
	o := newOverlay(t)
	deep := func(levels int) {
		t.Helper()
		fd, err := openRoot(o.upper)
		require.NoError(t, err)
		for range levels {
			require.NoError(t, unix.Mkdirat(fd, "dddddddd", 0o755))
			next, err := openDir(fd, "dddddddd")
			require.NoError(t, err)
			closeFD(fd)
			fd = next
		}
		closeFD(fd)
	}
	deep(3000)
	mustCapture(t, o.upper, o.snapshot(1), "")
	stats := mustCapture(t, o.upper, o.snapshot(2), o.snapshot(1))
	require.Equal(t, 3001, stats.Entries)
	require.NoError(t, os.Rename(o.upper+"/dddddddd", o.upper+"/eeeeeeee"))
	require.NoError(t, os.RemoveAll(o.snapshot(1)))
	_, err := Rollback(t.Context(), o.snapshot(2), o.upper)
	require.NoError(t, err)
	requireIsSame(t, true, o.snapshot(2), o.upper)

	require.NoError(t, os.Rename(o.upper+"/dddddddd", o.upper+"/eeeeeeee"))
	deep(maxDepth - 1)
	fd, err := openRoot(o.upper)
	require.NoError(t, err)
	defer closeFD(fd)
	require.NoError(t, os.Mkdir(o.upper+"/fff", 0o755))
	require.NoError(t, os.Rename(o.upper+"/dddddddd", o.upper+"/fff/dddddddd"))
	_, err = Capture(t.Context(), o.upper, o.snapshot(3), o.snapshot(2), Limits{})
	require.ErrorIs(t, err, ErrLimit)
	require.NoDirExists(t, o.snapshot(3))
	rollBack(t, o.snapshot(2), o.upper) // whatever the depth of what goes
	requireIsSame(t, true, o.snapshot(2), o.upper)
	mustRemoveDeep(t, o.upper)
}

// mustRemoveDeep empties a tree that os.RemoveAll would need too long a path
// for.
func mustRemoveDeep(t *testing.T, dir string) {
	t.Helper()
	fd, err := openRoot(dir)
	require.NoError(t, err)
	defer closeFD(fd)
	var st unix.Statx_t
	require.NoError(t, statAt(fd, "", &st))
	r := &rollback{ctx: context.Background(), dev: deviceOf(&st)}
	names, err := readNames(fd, r.dirents[:])
	require.NoError(t, err)
	for _, name := range names {
		require.NoError(t, r.removeTree(fd, name))
	}
}

func TestLimits(t *testing.T) {
	o := newOverlay(t)
	for i := range 20 {
		write(t, fmt.Sprintf("%s/f%d", o.upper, i), strings.Repeat("x", 1000))
	}
	for _, l := range []Limits{{MaxBytes: 19_999}, {MaxEntries: 20}} {
		_, err := Capture(t.Context(), o.upper, o.snapshot(1), "", l)
		require.ErrorIs(t, err, ErrLimit)
		require.NoDirExists(t, o.snapshot(1))
	}
	stats, err := Capture(t.Context(), o.upper, o.snapshot(1), "", Limits{MaxBytes: 20_000, MaxEntries: 21})
	require.NoError(t, err)
	require.Equal(t, 21, stats.Entries)
	_, err = Capture(t.Context(), o.upper, o.snapshot(2), o.snapshot(1), Limits{MaxBytes: 19_999})
	require.ErrorIs(t, err, ErrLimit, "unchanged files count")
	_, err = Capture(t.Context(), o.upper, o.snapshot(2), "", Limits{MaxBytes: -1})
	require.Error(t, err)
	_, err = Capture(t.Context(), o.upper, o.snapshot(1), "", Limits{})
	require.ErrorIs(t, err, os.ErrExist)
	require.FileExists(t, o.snapshot(1)+"/"+manifestName, "what existed is not removed")
}

func TestCaptureFailureLeavesNothing(t *testing.T) {
	o := newOverlay(t)
	for i := range 20 {
		write(t, fmt.Sprintf("%s/f%d", o.upper, i), strings.Repeat("x", 200_000))
	}
	mustCapture(t, o.upper, o.snapshot(1), "")
	for i := range 200 {
		_, err := Capture(&countdown{t.Context(), i}, o.upper, o.snapshot(2), o.snapshot(1), Limits{})
		if err == nil {
			require.Greater(t, i, 10)
			return
		}
		require.ErrorIs(t, err, context.Canceled)
		require.NoDirExists(t, o.snapshot(2))
	}
	t.Fatal("the capture never finished")
}
