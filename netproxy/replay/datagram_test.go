package replay

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
)

func arrived(sent uint64, s string) journal.Record {
	return journal.Record{Type: journal.TypeDatagram, Source: client, Dest: server, Sent: sent, Payload: []byte(s)}
}

func taken(of journal.Position) journal.Record {
	return journal.Record{Type: journal.TypeDatagramTaken, Of: of}
}

func sent(hash uint64) journal.Record {
	return journal.Record{Type: journal.TypeDatagramSent, Flow: 7, Hash: hash}
}

// TestDatagramsInOrder: between TCP input, as they were taken; what was not taken
// comes at the end, and what was taken before the cut does not come.
func TestDatagramsInOrder(t *testing.T) {
	r := script(
		arrived(3, "a"), // 1: taken before the cut
		arrived(3, "b"), // 2: waits at the cut
		taken(1), sent(1),
		arrived(4, "c"), // 5: waits at the cut, and in the end
		journal.Record{Type: journal.TypeMark},
		opened(1), input(1, 0, 0, "tcp"),
		arrived(4, "d"), // 9
		arrived(5, "e"), // 10
		taken(2), sent(2), taken(10), consumed(1, 3), taken(9), taken(9), taken(99),
	)
	plan, err := Build(r, &Table{Mark: 6, ScanFrom: 1, Datagrams: []journal.Position{2, 5}, Sent: 4}, nil)
	require.NoError(t, err)
	var steps []string
	for _, s := range plan.Steps {
		switch s.Kind {
		case Receive:
			steps = append(steps, string(s.Datagram.Payload))
			require.Equal(t, client, s.Datagram.Source)
			require.Equal(t, server, s.Datagram.Dest)
		case Feed:
			steps = append(steps, "tcp")
		}
	}
	require.Equal(t, []string{"b", "e", "tcp", "d"}, steps)
	require.Equal(t, []Reply{{Flow: 7, Hash: 2}}, plan.Replies)
	require.Len(t, plan.Untaken, 1)
	require.Equal(t, journal.Position(5), plan.Untaken[0].Position)
	require.Equal(t, uint64(1), plan.Steps[2].Datagram.Sent, "counted from the cut")
	require.Equal(t, uint64(0), plan.Untaken[0].Sent)
}
