package recovery

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy"
	"github.com/crsc-io/crsc/shim/lifecycle"
)

// TestLadder: an application that needed the order of answers gets it from the
// checkpoint before the last one as well.
func TestLadder(t *testing.T) {
	older, last := &checkpoint{seq: 1}, &checkpoint{seq: 2}
	g := &guard{store: &store{}}
	require.Empty(t, g.ladder())
	g.store.list = []*checkpoint{older, last}
	require.Equal(t, []rung{
		{from: last}, {from: last, answers: true}, {from: older}, {from: last, tolerate: true},
	}, g.ladder())
	g.byAnswers = true
	require.Equal(t, []rung{
		{from: last, answers: true}, {from: last}, {from: older, answers: true}, {from: older}, {from: last, tolerate: true},
	}, g.ladder())
	g.byAnswers, g.late = false, true
	require.Equal(t, []rung{
		{from: last, late: true}, {from: last, answers: true}, {from: older, late: true}, {from: last, tolerate: true},
	}, g.ladder())
}

// TestAgain: a way on which new requests had all connections of a pool is tried again with
// them put off, as long as it is known of more.
func TestAgain(t *testing.T) {
	crowded := func(ids ...uint32) error {
		return fmt.Errorf("step 1 of 2: %w", &netproxy.CrowdedError{Vain: ids, Err: netproxy.ErrDiverged})
	}
	way := rung{from: &checkpoint{seq: 1}}
	_, ok := way.again(netproxy.ErrDiverged)
	require.False(t, ok)
	next, ok := way.again(crowded())
	require.True(t, ok)
	require.Equal(t, rung{from: way.from, late: true, tries: 1}, next)
	_, ok = next.again(crowded())
	require.False(t, ok, "nothing else would come of it")
	next, ok = next.again(crowded(3, 4))
	require.True(t, ok)
	other, ok := next.again(crowded(5))
	require.True(t, ok)
	last, ok := next.again(crowded(3))
	require.True(t, ok)
	require.Equal(t, []uint32{3, 4, 3}, last.last)
	require.Equal(t, []uint32{3, 4, 5}, other.last)
	for range lateTries - 3 {
		last, ok = last.again(crowded(3))
		require.True(t, ok)
	}
	_, ok = last.again(crowded(3))
	require.False(t, ok)
	for _, way := range []rung{{answers: true}, {tolerate: true}} {
		_, ok := way.again(crowded(3))
		require.False(t, ok)
	}
}

// TestDeathIsTold: an operator reads how the application ended, not only that the
// replay did.
func TestDeathIsTold(t *testing.T) {
	g := &guard{}
	aborted := fmt.Errorf("after the last of 0 steps: %w", netproxy.ErrAborted)
	require.Equal(t, aborted, g.tellDeath(aborted), "SIGKILL from the orchestrator")
	g.died = &lifecycle.Exit{Status: 1}
	err := g.tellDeath(aborted)
	require.ErrorIs(t, err, ErrDiedAgain)
	require.ErrorIs(t, err, netproxy.ErrAborted)
	require.ErrorContains(t, err, "the restored application ended again: exit status 1, before the replay was over")
	require.EqualError(t, g.tellDeath(ErrDiedAgain), "the restored application ended again: exit status 1")
	require.Equal(t, netproxy.ErrStalled, g.tellDeath(netproxy.ErrStalled), "it was killed for that")
	g.forgetDeath()
	require.Equal(t, aborted, g.tellDeath(aborted))
}
