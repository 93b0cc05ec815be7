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
