package layer

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestSparseStaysSparse(t *testing.T) {
	o := newOverlay(t)
	path := o.upper + "/sparse"
	write(t, path, "")
	require.NoError(t, os.Truncate(path, 1<<30))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	for _, at := range []int64{0, 100 << 20, 1<<30 - 5} {
		_, err = f.WriteAt([]byte("data!"), at)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	stats := mustCapture(t, o.upper, o.snapshot(1), "")
	require.LessOrEqual(t, stats.Bytes, int64(3*4096))
	view := describe(t, o.upper, false)

	require.NoError(t, os.Remove(path))
	rollBack(t, o.snapshot(1), o.upper)
	requireSame(t, view, describe(t, o.upper, false), "recreated")
	blocks := func() int64 {
		var st unix.Stat_t
		require.NoError(t, unix.Stat(path, &st))
		return st.Blocks * 512
	}
	require.LessOrEqual(t, blocks(), int64(64<<10))

	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("z", 8<<20)), 0o600)) // same inode, no hole
	rollBack(t, o.snapshot(1), o.upper)
	requireSame(t, view, describe(t, o.upper, false), "repaired")
	require.LessOrEqual(t, blocks(), int64(64<<10))
}
