package recovery

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestSlots: several users of one directory, as the shims of a node are.
func TestSlots(t *testing.T) {
	dir := t.TempDir()
	var now, most atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		s := newSlots(dir, 2)
		wg.Go(func() {
			for range 5 {
				release, err := s.take(context.Background())
				if !assert.NoError(t, err) {
					return
				}
				n := now.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				time.Sleep(time.Millisecond)
				now.Add(-1)
				release()
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 2, most.Load())
}

func TestSlotsWithoutLimit(t *testing.T) {
	s := newSlots("/dev/null/no directory", 0)
	for range 3 {
		_, err := s.try()
		require.NoError(t, err)
	}
	s.limit = 1
	_, err := s.try()
	require.Error(t, err)
	require.NotErrorIs(t, err, errNoSlot)
}

func TestWaitForASlotIsBounded(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(dir, 1)
		release, err := s.try()
		require.NoError(t, err)
		begun := time.Now()
		_, err = s.take(t.Context())
		require.ErrorIs(t, err, errNoSlot)
		require.InDelta(t, slotPatience.Seconds(), time.Since(begun).Seconds(), 0.1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.take(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		release()
		release, err = s.take(ctx)
		require.NoError(t, err)
		release()
	})
}

// TestScheduledCheckpointWaitsForASlot, and a demand is heard meanwhile; one
// that waits too long has failed, with the reason.
func TestScheduledCheckpointWaitsForASlot(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{"crsc.io/checkpoint-interval": "10s"})
		b.took = 0
		b.slots = newSlots(dir, 1)
		var reasons []string
		b.failed = func(err error, again time.Duration) {
			reasons = append(reasons, err.Error())
			b.failedOne(err, again)
		}
		release, err := newSlots(dir, 1).try()
		require.NoError(t, err)
		b.run(t, 30*time.Second, func() {
			time.Sleep(12 * time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			begun := time.Now()
			require.ErrorIs(t, b.now(ctx, "asked"), context.DeadlineExceeded)
			require.Equal(t, 100*time.Millisecond, time.Since(begun))
			time.Sleep(10 * time.Second)
			release()
		})
		require.Equal(t, []string{"max_concurrent_dumps: all slots of the node are taken for 10s"}, reasons)
		require.Len(t, b.at, 1, "when a slot was free: %v", b.at)
		require.InDelta(t, 22.1, b.at[0].Seconds(), 0.1)
	})
}
