package recovery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

// TestDoomedCheckpoint restores a container twice that dies at once: the second
// time the checkpoint before is tried first.
func TestDoomedCheckpoint(t *testing.T) {
	g := &guard{store: &store{list: []*checkpoint{{seq: 1}, {seq: 2}}}}
	order := func() (seqs []uint64) {
		for _, w := range g.ladder() {
			if w.from != nil && !w.tolerate && !w.answers {
				seqs = append(seqs, w.from.seq)
			}
		}
		return seqs
	}
	now := time.Now()
	crash := func(status int, after time.Duration) {
		g.rise.crashed(lifecycle.Exit{Status: status, At: now.Add(after)})
	}
	crash(139, 0) // before any recovery
	require.Equal(t, []uint64{2, 1}, order())

	g.rise.from(rung{from: g.store.list[1]}, now)
	crash(137, time.Millisecond) // killed from outside
	crash(139, time.Second)      // lived on for a while
	require.Equal(t, []uint64{2, 1}, order())
	crash(139, 50*time.Millisecond)
	require.Equal(t, []uint64{1, 2}, order())

	g.rise.from(rung{from: g.store.list[0]}, now)
	crash(139, 50*time.Millisecond)
	require.Equal(t, []uint64{2, 1}, order(), "nothing better is left")

	g.store.list = append(g.store.list, &checkpoint{seq: 3})
	require.Equal(t, []uint64{3, 2, 1}, order())
}
