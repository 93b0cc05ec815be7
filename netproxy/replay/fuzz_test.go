package replay

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
)

// FuzzPlan: whatever is in a journal, a plan is made of it, and arranging it by answers
// loses no step and leaves those of each connection in their order.
func FuzzPlan(f *testing.F) {
	f.Add([]byte("\x00\x01\x00\x02\x10\x11\x12\x13\x20\x21\x31\x41"))
	f.Add([]byte("\x00\x10\x30\x20\x10\x20\x30\x40\x01\x50\x60"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		var in, out, taken [4]uint64
		var list []journal.Record
		for _, op := range ops {
			id, i := uint32(op&3)+1, op&3
			switch op >> 4 {
			case 0:
				list = append(list, opened(id))
			case 1:
				list = append(list, input(id, in[i], out[i], "ab"))
				in[i] += 2
			case 2:
				taken[i] = min(taken[i]+1, in[i])
				list = append(list, consumed(id, taken[i]))
			case 3:
				list = append(list, output(id, out[i], 3))
				out[i] += 3
			case 4:
				list = append(list, closed(id, journal.In, journal.FIN))
			case 5:
				list = append(list, closed(id, journal.Out, journal.RST))
			case 6:
				list = append(list, closed(id, journal.In, journal.RST))
			case 7: // out of place
				list = append(list, input(id, in[i]+1, out[i]+1, "x"))
			case 8:
				list = append(list, journal.Record{Type: journal.TypeUrgent, Conn: id, Offset: in[i]})
			}
		}
		plan, err := Build(script(list...), nil, nil)
		if err != nil {
			return
		}
		was := ofConns(plan)
		for _, c := range plan.Conns {
			c.Exchanges()
		}
		plan.ByAnswers()
		is := ofConns(plan)
		require.Equal(t, len(was), len(is))
		for id, steps := range was {
			require.True(t, slices.Equal(steps, is[id]), "connection %d: %v, was %v", id, is[id], steps)
		}
	})
}

// ofConns are the steps of each connection.
func ofConns(p *Plan) map[uint32][]Step {
	list := map[uint32][]Step{}
	for _, s := range p.Steps {
		s.Answer = 0
		list[s.Conn.ID] = append(list[s.Conn.ID], s)
	}
	return list
}
