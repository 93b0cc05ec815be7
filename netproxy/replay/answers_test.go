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

// TestUnansweredComeLast: a request that nobody had answered when the application
// died would take the lock from the one that had got it, which was taken before.
func TestUnansweredComeLast(t *testing.T) {
	plan, err := Build(script(opened(1), opened(2), opened(3),
		input(1, 0, 0, "a"), consumed(1, 1), input(2, 0, 0, "b"), consumed(2, 1), output(2, 0, 2),
		input(2, 1, 2, "c"), consumed(2, 2), input(3, 0, 0, "d"), consumed(3, 1), output(1, 0, 2), output(2, 2, 2),
	), nil, nil)
	require.NoError(t, err)
	plan.ByAnswers()
	require.Equal(t, []brief{
		{Open, 1, 0, 0}, {Open, 2, 0, 0}, {Open, 3, 0, 0}, {Feed, 2, 1, 0}, {Feed, 2, 2, 2}, {Feed, 1, 1, 0}, {Feed, 3, 1, 0},
	}, steps(plan))
}

// TestAnswersToWhatTheImageHolds: the application had not taken a request at the cut,
// and its answer is recorded before it is seen to have.
func TestAnswersToWhatTheImageHolds(t *testing.T) {
	table := &Table{Mark: 1, ScanFrom: 1, NextID: 2, Conns: []ConnState{
		{ID: 1, Client: client, Dest: server, InSent: 4, InConsumed: 2, OutRead: 3},
	}}
	plan, err := Build(script(output(1, 3, 3), consumed(1, 4), input(1, 4, 6, "cc"), output(1, 6, 3), consumed(1, 6)),
		table, map[uint32]Socket{1: {Received: 4, Consumed: 2, Acked: 3}})
	require.NoError(t, err)
	plan.ByAnswers()
	require.Equal(t, []brief{{Feed, 1, 4, 0}, {Feed, 1, 6, 6}}, steps(plan))
	require.EqualValues(t, 6, plan.Steps[0].Answer)
	require.EqualValues(t, 9, plan.Steps[1].Answer)
}

// TestTailBehindTheImage: what the image holds of a connection's input is delivered.
func TestTailBehindTheImage(t *testing.T) {
	table := &Table{Mark: 1, ScanFrom: 1, NextID: 2, Conns: []ConnState{
		{ID: 1, Client: client, Dest: server, InSent: 4, InConsumed: 2, OutRead: 3},
	}}
	plan, err := Build(script(output(1, 3, 3), input(1, 4, 6, "cc"), output(1, 6, 3), input(1, 6, 9, "dd")),
		table, map[uint32]Socket{1: {Received: 4, Consumed: 2, Acked: 3}})
	require.NoError(t, err)
	require.Equal(t, []brief{{Tail, 1, 6, 6}, {Tail, 1, 8, 9}}, steps(plan))
	require.EqualValues(t, 4, plan.Steps[0].From)
}
