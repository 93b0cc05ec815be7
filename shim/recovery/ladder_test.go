package recovery

import (
	"testing"

	"github.com/stretchr/testify/require"
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
