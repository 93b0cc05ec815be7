package recovery

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCapturing: one that hangs is given up, and keeps others from beginning until it
// has ended and what it left was taken care of.
func TestCapturing(t *testing.T) {
	start := func(do func()) { go do() }
	nothing := func() { t.Error("it was not given up") }
	var c capturing
	failure := errors.New("x")
	require.ErrorIs(t, c.within(t.Context(), time.Minute, start, func(context.Context) error { return failure }, nothing), failure)
	require.NoError(t, c.within(t.Context(), time.Minute, start, func(context.Context) error { return nil }, nothing))
	require.NoError(t, c.pending())

	told, disk, after := make(chan struct{}), make(chan struct{}), make(chan struct{})
	err := c.within(t.Context(), time.Millisecond, start, func(ctx context.Context) error {
		<-ctx.Done()
		close(told)
		<-disk
		return nil
	}, func() {
		require.Error(t, c.pending(), "it is not over before that")
		close(after)
	})
	require.ErrorIs(t, err, errDiskSilent)
	<-told
	require.ErrorIs(t, c.pending(), errDiskSilent)
	close(disk)
	<-after
	require.Eventually(t, func() bool { return c.pending() == nil }, time.Minute, time.Millisecond)
}
