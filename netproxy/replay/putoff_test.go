package replay

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
)

// TestPutOff: what was not answered comes last, with what followed on its connection, and
// what the application asks others keeps its place.
func TestPutOff(t *testing.T) {
	build := func() *Plan {
		server := opened(5)
		server.Open.Direction = journal.Out
		plan, err := Build(script(opened(1), opened(2), opened(3), opened(4),
			input(1, 0, 0, "a"), consumed(1, 1), input(2, 0, 0, "b"), consumed(2, 1), closed(2, journal.In, journal.FIN),
			server, consumed(5, 0), output(5, 0, 1), input(5, 0, 1, "x"), consumed(5, 1),
			input(3, 0, 0, "c"), consumed(3, 1), output(3, 0, 1), input(3, 1, 1, "d"),
			input(4, 0, 0, "e"), output(4, 0, 1),
		), nil, nil)
		require.NoError(t, err)
		return plan
	}
	first := []brief{
		{Open, 1, 0, 0}, {Open, 2, 0, 0}, {Open, 3, 0, 0}, {Open, 4, 0, 0},
		{Connect, 5, 0, 0}, {Feed, 5, 1, 1}, {Feed, 3, 1, 0}, {Tail, 4, 1, 0},
	}
	late := func(p *Plan) (list []uint32) {
		for _, s := range p.Steps {
			if s.Late {
				list = append(list, s.Conn.ID)
			}
		}
		return list
	}
	plan := build()
	require.True(t, plan.PutOff(nil))
	require.Equal(t, append(first, brief{Feed, 1, 1, 0}, brief{Feed, 2, 1, 0}, brief{Shut, 2, 1, 0}, brief{Tail, 3, 2, 1}), steps(plan))
	require.Equal(t, []uint32{1, 2, 3}, late(plan))
	plan = build()
	require.True(t, plan.PutOff([]uint32{1, 1, 5, 2}))
	require.Equal(t, append(first, brief{Tail, 3, 2, 1}, brief{Feed, 2, 1, 0}, brief{Shut, 2, 1, 0}, brief{Feed, 1, 1, 0}), steps(plan))
	plan, err := Build(script(opened(1), input(1, 0, 0, "a"), consumed(1, 1), output(1, 0, 1)), nil, nil)
	require.NoError(t, err)
	require.False(t, plan.PutOff(nil))
}
