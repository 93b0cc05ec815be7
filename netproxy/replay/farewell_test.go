package replay

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
)

func TestFarewellEndsEachConnectionBehindItsInput(t *testing.T) {
	p := Farewell(&Table{NextID: 9, Conns: []ConnState{
		{ID: 1, Client: client, Dest: server, InSent: 7},
		{ID: 2, Direction: journal.Out, Client: server, Dest: client, InClosed: true},
		{ID: 3, Client: client, Dest: server}, // not in the images
	}}, map[uint32]Socket{1: {Received: 6, Consumed: 4, Acked: 3}, 2: {Received: 1, Consumed: 1}})
	require.Equal(t, []brief{{Shut, 1, 6, 0}}, steps(p))
	require.Len(t, p.Conns, 2)
	require.EqualValues(t, 6, p.Conns[1].Start)
	require.EqualValues(t, 4, p.Conns[1].ConsumedMark())
	require.EqualValues(t, 9, p.NextID)
}
