package layer

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDraft(t *testing.T) {
	o := newOverlay(t)
	write(t, o.upper+"/f", "1")
	d, err := Prepare(o.snapshot(1), "", Limits{})
	require.NoError(t, err)
	requireNoSnapshot(t, o.snapshot(1))
	require.NoError(t, d.Discard())
	require.NoDirExists(t, o.snapshot(1))
	_, err = d.Capture(t.Context(), o.upper)
	require.ErrorIs(t, err, os.ErrClosed)

	d, err = Prepare(o.snapshot(1), "", Limits{})
	require.NoError(t, err)
	write(t, o.upper+"/f", "22") // not frozen yet
	_, err = d.Capture(t.Context(), o.upper)
	require.NoError(t, err)
	require.NoError(t, d.Discard(), "keeps what has been captured")
	requireIsSame(t, true, o.snapshot(1), o.upper)
}

func requireNoSnapshot(t *testing.T, dir string) {
	t.Helper()
	_, err := Same(dir, dir)
	require.ErrorIs(t, err, ErrNoSnapshot)
}

// TestNothingLeaks counts descriptors over all that can be done, and fail.
func TestNothingLeaks(t *testing.T) {
	o := newOverlay(t)
	write(t, o.upper+"/a/b", "1")
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(fds)
	}
	before := count()
	for i := range 20 {
		mustCapture(t, o.upper, o.snapshot(i), "")
		mustCapture(t, o.upper, o.snapshot(1000+i), o.snapshot(i))
		_, err := Capture(&countdown{t.Context(), i % 4}, o.upper, o.snapshot(500+i), o.snapshot(i), Limits{})
		require.True(t, err == nil || errors.Is(err, context.Canceled))
		require.NoError(t, Sync(o.snapshot(i)))
		write(t, o.upper+"/a/c", "2")
		requireIsSame(t, false, o.snapshot(i), o.upper)
		_, err = Rollback(&countdown{t.Context(), i % 4}, o.snapshot(i), o.upper)
		require.True(t, err == nil || errors.Is(err, context.Canceled))
		rollBack(t, o.snapshot(i), o.upper)
	}
	require.Equal(t, before, count())
}
