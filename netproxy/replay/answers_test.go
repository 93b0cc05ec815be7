package replay

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
)

// TestAnswersOfARound: what the application wrote is recorded before it is looked
// what it has taken.
func TestAnswersOfARound(t *testing.T) {
	plan, err := Build(script(opened(1), opened(2),
		input(1, 0, 0, "a"), output(1, 0, 2), consumed(1, 1),
		input(1, 1, 2, "b"), output(1, 2, 2), consumed(1, 2),
		input(1, 2, 4, "c"), input(1, 3, 4, "d"), input(2, 0, 0, "e"),
		consumed(1, 3), output(1, 4, 2), consumed(2, 1), consumed(1, 4), output(1, 6, 2),
	), nil, nil)
	require.NoError(t, err)
	plan.ByAnswers()
	var answers []uint64
	for _, s := range plan.Steps {
		if s.Conn.ID == 1 && s.Kind == Feed {
			answers = append(answers, s.Answer)
		}
	}
	require.Equal(t, []uint64{2, 4, 6, 8}, answers)
}

// TestByAnswers: two sessions ask for a lock at a time, and the one that asked
// later gets it first.
func TestByAnswers(t *testing.T) {
	open := func(conn uint32, dir journal.Direction) journal.Record {
		return journal.Record{Type: journal.TypeOpen, Open: journal.ConnOpen{Conn: conn, Direction: dir, Client: client, Server: server}}
	}
	in := func(conn uint32, offset, outPos uint64) journal.Record {
		return journal.Record{Type: journal.TypeInput, Conn: conn, Offset: offset, OutPos: outPos, Payload: []byte("x")}
	}
	took := func(conn uint32, upto uint64) journal.Record {
		return journal.Record{Type: journal.TypeConsumed, Conn: conn, Offset: upto}
	}
	out := func(conn uint32, offset uint64) journal.Record {
		return journal.Record{Type: journal.TypeOutput, Conn: conn, Offset: offset, Length: 2}
	}
	script := func(dir journal.Direction) RecordReader {
		return script(open(1, dir), open(2, dir), open(3, dir),
			in(3, 0, 0), took(3, 1), in(1, 0, 0), took(1, 1), in(2, 0, 0), took(2, 1),
			out(2, 0), in(2, 1, 2), took(2, 2), out(1, 0), out(2, 2), in(1, 1, 2), took(1, 2), out(1, 2))
	}
	plan, err := Build(script(journal.In), nil, nil)
	require.NoError(t, err)
	require.True(t, plan.HasAnswers())
	plan.ByAnswers()
	type step struct {
		kind   Kind
		conn   uint32
		upto   uint64
		answer uint64
	}
	var got []step
	for _, s := range plan.Steps {
		got = append(got, step{s.Kind, s.Conn.ID, s.Upto, s.Answer})
	}
	require.Equal(t, []step{
		{Open, 1, 0, 0}, {Open, 2, 0, 0}, {Open, 3, 0, 0},
		{Feed, 2, 1, 2}, {Feed, 2, 2, 4}, {Feed, 1, 1, 2}, {Feed, 1, 2, 4},
		{Feed, 3, 1, 0},
	}, got)

	plan, err = Build(script(journal.Out), nil, nil)
	require.NoError(t, err)
	require.False(t, plan.HasAnswers())
}
