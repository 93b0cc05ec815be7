package lifecycle

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTrackerEarlyExit(t *testing.T) {
	tr := newTracker()
	p := newProcess("", stdioNone)
	l := tr.launch()
	_, ok := tr.exited(Exit{Pid: 7, Status: 3})
	require.False(t, ok, "nobody's yet")
	e, early := l.adopt(7, owner{process: p})
	require.True(t, early)
	require.Equal(t, 3, e.Status)
	_, ok = tr.exited(Exit{Pid: 7})
	require.False(t, ok, "an early exit leaves no owner")
	require.Empty(t, tr.launches)
}

// TestTrackerRace: however adopting and exiting interleave, each exit reaches
// its process exactly once.
func TestTrackerRace(t *testing.T) {
	tr := newTracker()
	for pid := range 2000 {
		p := newProcess("", stdioNone)
		l := tr.launch()
		var seen atomic.Int32
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, early := l.adopt(pid, owner{process: p}); early {
				seen.Add(1)
			}
		})
		wg.Go(func() {
			if o, ok := tr.exited(Exit{Pid: pid}); ok && o.process == p {
				seen.Add(1)
			}
		})
		wg.Wait()
		require.EqualValues(t, 1, seen.Load())
	}
	require.Empty(t, tr.owners)
	require.Empty(t, tr.launches)
}
