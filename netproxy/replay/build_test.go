package replay

import (
	"errors"
	"io"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
)

// records is a journal in memory; a record's position is its index plus one.
type records []journal.Record

func (r *records) Next(rec *journal.Record) error {
	if len(*r) == 0 {
		return io.EOF
	}
	*rec = (*r)[0]
	*r = (*r)[1:]
	return nil
}

func script(recs ...journal.Record) *records {
	for i := range recs {
		recs[i].Position = journal.Position(i + 1)
	}
	r := records(recs)
	return &r
}

var (
	client = netip.MustParseAddrPort("198.51.100.7:40000")
	server = netip.MustParseAddrPort("198.51.100.1:6379")
)

func opened(id uint32) journal.Record {
	return journal.Record{Type: journal.TypeOpen, Open: journal.ConnOpen{Conn: id, Client: client, Server: server, LegPort: uint16(20000 + id)}}
}

func input(id uint32, off, outPos uint64, s string) journal.Record {
	return journal.Record{Type: journal.TypeInput, Conn: id, Offset: off, OutPos: outPos, Payload: []byte(s)}
}

func consumed(id uint32, off uint64) journal.Record {
	return journal.Record{Type: journal.TypeConsumed, Conn: id, Offset: off}
}

func output(id uint32, off uint64, n uint32) journal.Record {
	return journal.Record{Type: journal.TypeOutput, Conn: id, Offset: off, Length: n}
}

func closed(id uint32, dir journal.Direction, kind journal.CloseKind) journal.Record {
	return journal.Record{Type: journal.TypeClose, Conn: id, Direction: dir, Close: kind}
}

type brief struct {
	Kind Kind
	Conn uint32
	Upto uint64
	Gate uint64
}

func steps(p *Plan) []brief {
	var out []brief
	for _, s := range p.Steps {
		out = append(out, brief{s.Kind, s.Conn.ID, s.Upto, s.Gate})
	}
	return out
}

func TestColdStartReplaysEverythingInTheOrderOfConsumption(t *testing.T) {
	p, err := Build(script(opened(1), opened(2), input(1, 0, 0, "aa"), input(2, 0, 0, "bb"),
		consumed(2, 2), output(2, 0, 3), consumed(1, 2), output(1, 0, 3), input(2, 2, 3, "cc"), consumed(2, 4)), nil, nil)
	require.NoError(t, err)
	require.Equal(t, []brief{
		{Open, 1, 0, 0}, {Open, 2, 0, 0}, {Feed, 2, 2, 0}, {Feed, 1, 2, 0}, {Feed, 2, 4, 3},
	}, steps(p))
	require.Equal(t, "bbcc", string(p.Conns[2].Input))
	require.EqualValues(t, 3, p.NextID)
	require.EqualValues(t, 6, p.Bytes)
}

func TestRecordsBeforeTheCutAreSkipped(t *testing.T) {
	table := &Table{Mark: 5, ScanFrom: 1, NextID: 3, Conns: []ConnState{
		{ID: 1, Client: client, Dest: server, InSent: 4, InConsumed: 2, OutRead: 3},
	}}
	p, err := Build(script(opened(1), input(1, 0, 0, "aabb"), consumed(1, 2), output(1, 0, 3),
		consumed(1, 4), output(1, 3, 3), input(1, 4, 6, "cc"), consumed(1, 6), output(1, 6, 3)),
		table, map[uint32]Socket{1: {Received: 4, Consumed: 2, Acked: 3}})
	require.NoError(t, err)
	// Input up to 4 is in the restored socket: only its consumption is awaited.
	require.Equal(t, []brief{{Feed, 1, 4, 0}, {Feed, 1, 6, 6}}, steps(p))
	require.Equal(t, "cc", string(p.Conns[1].Input))
	require.Len(t, p.Conns[1].Outputs, 2)
	require.EqualValues(t, 6, p.Conns[1].ConsumedMark())
}

func TestConnectionThatWaitedToBeAcceptedIsOpenedAgain(t *testing.T) {
	table := &Table{Mark: 3, ScanFrom: 1, NextID: 3, Conns: []ConnState{
		{ID: 1, Client: client, Dest: server},
		{ID: 2, Client: client, Dest: server, InConsumed: 2, AppClosed: true},
	}}
	p, err := Build(script(opened(1), opened(2), input(1, 0, 0, "aa"), consumed(1, 2)), table, nil)
	require.NoError(t, err)
	require.Equal(t, []brief{{Open, 1, 0, 0}, {Feed, 1, 2, 0}}, steps(p))
	require.Nil(t, p.Conns[2])
}

func TestConsumptionOfOneConnectionIsMergedUnlessOutputCameBetween(t *testing.T) {
	p, err := Build(script(opened(1), input(1, 0, 0, "aabbcc"), consumed(1, 2), consumed(1, 4), consumed(1, 6),
		input(1, 6, 9, "dd"), consumed(1, 8)), nil, nil)
	require.NoError(t, err)
	require.Equal(t, []brief{{Open, 1, 0, 0}, {Feed, 1, 6, 0}, {Feed, 1, 8, 9}}, steps(p))
}

func TestFinWaitsForTheInputBeforeIt(t *testing.T) {
	p, err := Build(script(opened(1), opened(2), input(1, 0, 0, "aa"), closed(1, journal.In, journal.FIN),
		input(2, 0, 0, "bb"), consumed(2, 2), consumed(1, 2)), nil, nil)
	require.NoError(t, err)
	require.Equal(t, []brief{
		{Open, 1, 0, 0}, {Open, 2, 0, 0}, {Feed, 2, 2, 0}, {Feed, 1, 2, 0}, {Shut, 1, 2, 0},
	}, steps(p))
}

func TestResetDeliversWhatWasTakenLater(t *testing.T) {
	p, err := Build(script(opened(1), input(1, 0, 0, "aabb"), closed(1, journal.In, journal.RST), consumed(1, 2)), nil, nil)
	require.NoError(t, err)
	require.Equal(t, []brief{{Open, 1, 0, 0}, {Reset, 1, 2, 0}, {Feed, 1, 2, 0}}, steps(p))
}

func TestUnconsumedInputComesLast(t *testing.T) {
	p, err := Build(script(opened(1), opened(2), input(1, 0, 0, "aa"), input(2, 0, 0, "bb"), consumed(2, 2)), nil, nil)
	require.NoError(t, err)
	require.Equal(t, []brief{{Open, 1, 0, 0}, {Open, 2, 0, 0}, {Feed, 2, 2, 0}, {Tail, 1, 2, 0}}, steps(p))
}

// TestTailsComeInTheOrderOfTheirArrival: not in that of their connections, of which
// the first to speak had been answered.
func TestTailsComeInTheOrderOfTheirArrival(t *testing.T) {
	p, err := Build(script(opened(1), opened(2), input(1, 0, 0, "aa"), input(2, 0, 0, "bb"), consumed(1, 2), consumed(2, 2),
		output(1, 0, 5), output(2, 0, 5), input(2, 2, 5, "cc"), input(1, 2, 5, "dd"), output(2, 5, 5), input(2, 4, 10, "ee")), nil, nil)
	require.NoError(t, err)
	require.Equal(t, []brief{
		{Open, 1, 0, 0}, {Open, 2, 0, 0}, {Feed, 1, 2, 0}, {Feed, 2, 2, 0},
		{Tail, 2, 4, 5}, {Tail, 1, 4, 5}, {Tail, 2, 6, 10},
	}, steps(p))
}

// TestTailWaitsForItsOwnAnswers: the answer to the first of two requests was seen,
// and that it was consumed was not.
func TestTailWaitsForItsOwnAnswers(t *testing.T) {
	p, err := Build(script(opened(1), input(1, 0, 0, "aa"), output(1, 0, 5), input(1, 2, 5, "bb"), input(1, 4, 5, "cc")), nil, nil)
	require.NoError(t, err)
	require.Equal(t, []brief{{Open, 1, 0, 0}, {Tail, 1, 2, 0}, {Tail, 1, 6, 5}}, steps(p))
}

func TestMissingInputIsAnError(t *testing.T) {
	_, err := Build(script(opened(1), input(1, 10, 0, "aa")), nil, nil)
	require.ErrorIs(t, err, ErrIncomplete)
	bad := errors.New("disk")
	_, err = Build(failing{bad}, nil, nil)
	require.ErrorIs(t, err, bad)
}

type failing struct{ err error }

func (f failing) Next(*journal.Record) error { return f.err }
