package layer

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestCoarseClock is for kernels before 6.13, whatever kernel runs.
func TestCoarseClock(t *testing.T) {
	path := t.TempDir() + "/f"
	write(t, path, "x")
	var st unix.Statx_t
	require.NoError(t, statAt(unix.AT_FDCWD, path, &st))
	tr := trust{writeNotify: true, now: nanoseconds(st.Ctime)}
	require.False(t, tr.metadata(&st), "a change in the same tick would look the same")
	tr.now++
	require.True(t, tr.metadata(&st))

	ids := []identity{identityOf(&st, true), {ctime: time.Now().Add(time.Hour).UnixNano(), trusted: true}, {trusted: true}}
	require.NoError(t, tr.settle(ids[:1]))
	require.True(t, ids[0].trusted)
	require.NoError(t, os.WriteFile(path, []byte("y"), 0o600))
	require.NoError(t, statAt(unix.AT_FDCWD, path, &st))
	require.Greater(t, nanoseconds(st.Ctime), ids[0].ctime, "what changes after settle has a later time")

	require.NoError(t, tr.settle(ids))
	require.True(t, ids[0].trusted)
	require.False(t, ids[1].trusted, "a time in the future is not waited for, nor trusted")
}

// TestWriterWithDirtyPage tells who may have a writable mapping.
func TestWriterWithDirtyPage(t *testing.T) {
	dir := newOverlay(t).upper // not on tmpfs
	write(t, dir+"/f", "dirty")
	r, err := os.Open(dir + "/f")
	require.NoError(t, err)
	defer func() { _ = r.Close() }()
	var st unix.Statx_t
	require.NoError(t, statAt(int(r.Fd()), "", &st))
	tr := trust{writeNotify: true, fine: true}
	require.True(t, tr.contents(int(r.Fd()), &st), "dirty, but nobody writes")

	w, err := os.OpenFile(dir+"/f", os.O_RDWR, 0)
	require.NoError(t, err)
	require.False(t, tr.contents(int(r.Fd()), &st), "dirty, and somebody may write")
	require.NoError(t, w.Sync())
	if kernelAtLeast(6, 5) {
		require.True(t, tr.contents(int(r.Fd()), &st), "clean: a store would fault")
	}
	require.NoError(t, w.Close())
	tr.writeNotify = false
	require.False(t, tr.contents(int(r.Fd()), &st))
}
