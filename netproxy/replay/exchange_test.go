package replay

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
)

func TestExchanges(t *testing.T) {
	open := journal.Record{Type: journal.TypeOpen, Open: journal.ConnOpen{Conn: 1, Direction: journal.Out, Client: client, Server: server}}
	connected := journal.Record{Type: journal.TypeConsumed, Conn: 1}
	out := func(offset uint64, n uint32) journal.Record {
		return journal.Record{Type: journal.TypeOutput, Conn: 1, Offset: offset, Length: n}
	}
	in := func(offset, outPos uint64, data string) journal.Record {
		return journal.Record{Type: journal.TypeInput, Conn: 1, Offset: offset, OutPos: outPos, Payload: []byte(data)}
	}
	again := func(offset uint64) journal.Record {
		return journal.Record{Type: journal.TypeRepeated, Conn: 1, Offset: offset}
	}
	type answer struct{ length, from, to uint64 }
	for what, test := range map[string]struct {
		image   *Socket
		outRead uint64
		records []journal.Record
		want    []answer
		not     bool
		again   []int // which are repeated
	}{
		"one after the other": {
			records: []journal.Record{out(0, 5), in(0, 5, "abc"), in(3, 5, "de"), out(5, 2), in(5, 7, "f")},
			want:    []answer{{5, 0, 5}, {2, 5, 6}},
		},
		"one that is made again": {
			records: []journal.Record{out(0, 5), in(0, 5, "abc"), out(5, 2), in(3, 7, "f"), again(5)},
			want:    []answer{{5, 0, 3}, {2, 3, 4}},
			again:   []int{1},
		},
		"in two writes, and not answered": {
			records: []journal.Record{out(0, 5), out(5, 5), in(0, 10, "abc"), out(10, 3), out(13, 3)},
			want:    []answer{{10, 0, 3}, {6, 3, 3}},
		},
		"the other end speaks first": {records: []journal.Record{in(0, 0, "hello"), out(0, 5)}, want: []answer{{5, 0, 5}}},
		"the cut is in an answer": {
			image: &Socket{Received: 12, Consumed: 10, Acked: 30}, outRead: 30,
			records: []journal.Record{in(12, 30, "abc"), out(30, 4), in(15, 34, "de")},
			want:    []answer{{0, 10, 15}, {4, 15, 17}},
		},
		"at rest at the cut, and some sent again": {
			image: &Socket{Received: 12, Consumed: 12, Acked: 30}, outRead: 34,
			records: []journal.Record{out(30, 4), out(34, 4), in(12, 38, "abc")},
			want:    []answer{{0, 12, 12}, {4, 12, 15}},
		},
		"a stretch on both sides of the cut whose bytes are known": {
			image: &Socket{Received: 12, Consumed: 12, Acked: 32}, outRead: 30,
			records: []journal.Record{{Type: journal.TypeOutputBytes, Conn: 1, Offset: 30, Payload: []byte("abcd")}, in(12, 34, "abc")},
			want:    []answer{{0, 12, 12}, {2, 12, 15}},
		},
		"a stretch on both sides of the cut": {
			image: &Socket{Received: 12, Consumed: 12, Acked: 32}, outRead: 32,
			records: []journal.Record{out(30, 4)}, not: true,
		},
	} {
		t.Run(what, func(t *testing.T) {
			var table *Table
			var sockets map[uint32]Socket
			records := test.records
			if test.image != nil {
				table = &Table{Conns: []ConnState{{ID: 1, Direction: journal.Out, Client: client, Dest: server, OutRead: test.outRead}}}
				sockets = map[uint32]Socket{1: *test.image}
			} else {
				records = append([]journal.Record{open, connected}, records...)
			}
			plan, err := Build(script(records...), table, sockets)
			require.NoError(t, err)
			list, ok := plan.Conns[1].Exchanges()
			require.Equal(t, !test.not, ok)
			if test.not {
				return
			}
			var got []answer
			for i, x := range list {
				require.Equal(t, slices.Contains(test.again, i), x.Repeated)
				got = append(got, answer{x.Length(), x.InFrom, x.InTo})
			}
			require.Equal(t, test.want, got)
		})
	}
}
