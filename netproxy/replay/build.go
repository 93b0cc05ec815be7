package replay

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
)

// RecordReader yields journal records; io.EOF ends them. *journal.Reader is one.
type RecordReader interface {
	Next(*journal.Record) error
}

// ErrIncomplete is returned when the journal does not hold what the cut needs:
// input between the cut and the first record of a connection is missing.
var ErrIncomplete = errors.New("replay: the journal does not reach back to the cut")

// maxMerge bounds one Feed step. Consecutive consumption of one connection is
// fed in one piece up to this size.
const maxMerge = 64 << 10

// Build reads the tail from r, which must begin at table.ScanFrom. sockets
// holds what the checkpoint's image says, by connection number. With a nil
// table the whole journal is replayed into a fresh start of the container.
func Build(r RecordReader, table *Table, sockets map[uint32]Socket) (*Plan, error) {
	b := &builder{plan: &Plan{Conns: map[uint32]*Conn{}, Fresh: table == nil}, reopen: map[uint32]bool{}, datagrams: map[journal.Position]*Datagram{}, waiting: map[journal.Position]bool{}}
	if table != nil {
		b.seed(table, sockets)
	}
	var rec journal.Record
	var first time.Time
	for {
		err := r.Next(&rec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("replay: %w", err)
		}
		b.plan.Records++
		if first.IsZero() && rec.Position >= b.mark {
			first = rec.Time
		}
		if !first.IsZero() {
			b.plan.Span = max(b.plan.Span, rec.Time.Sub(first))
		}
		if err := b.take(&rec); err != nil {
			return nil, err
		}
	}
	b.finish()
	return b.plan, nil
}

type builder struct {
	plan   *Plan
	mark   journal.Position
	reopen map[uint32]bool // opened before the cut, absent from the image
	inputs []arrival       // in order

	datagrams map[journal.Position]*Datagram
	arrived   []*Datagram               // in order
	waiting   map[journal.Position]bool // came before the cut and were not taken
	sent      uint64                    // datagrams that had been sent at the cut
}

// arrival is input of a connection, up to an offset.
type arrival struct {
	conn *Conn
	end  uint64
}

// seed enters the connections that the image holds, and those that were open
// but had not been accepted when the image was made.
func (b *builder) seed(t *Table, sockets map[uint32]Socket) {
	b.mark = t.Mark
	b.plan.NextID = t.NextID
	b.sent = t.Sent
	for _, pos := range t.Datagrams {
		b.waiting[pos] = true
	}
	for _, cs := range t.Conns {
		if s, ok := sockets[cs.ID]; ok {
			b.plan.Conns[cs.ID] = &Conn{ConnState: cs, Image: &s, Start: s.Received, consumed: s.Consumed}
			continue
		}
		if cs.Opening {
			c := &Conn{ConnState: cs}
			b.plan.Conns[cs.ID] = c
			b.plan.Outgoing = append(b.plan.Outgoing, c)
			continue
		}
		if cs.Direction == journal.Out {
			continue // the application had closed it
		}
		// The application had never touched it: it waited to be accepted.
		if !cs.AppClosed && cs.InConsumed == 0 && cs.OutRead == 0 {
			b.reopen[cs.ID] = true
		}
	}
}

func (b *builder) take(rec *journal.Record) error {
	switch rec.Type {
	case journal.TypeMark:
		return nil
	case journal.TypeOpen:
		b.open(rec)
		return nil
	case journal.TypeDatagram, journal.TypeDatagramTaken, journal.TypeDatagramSent:
		b.datagram(rec)
		return nil
	}
	c := b.plan.Conns[rec.Conn]
	if c == nil {
		return nil // ended before the cut
	}
	switch rec.Type {
	case journal.TypeInput:
		return b.input(c, rec)
	case journal.TypeConsumed:
		b.consumed(c, rec.Offset)
	case journal.TypeOutput, journal.TypeOutputBytes:
		b.output(c, rec)
	case journal.TypeUrgent:
		b.urgent(c, rec.Offset)
	case journal.TypeFailed:
		b.failed(c, unix.Errno(rec.Errno))
	case journal.TypeRepeated:
		c.repeated = append(c.repeated, rec.Offset)
	case journal.TypeClose:
		b.close(c, rec)
	}
	return nil
}

// step adds one that the present record is the reason of.
func (b *builder) step(s Step) {
	s.seq, s.At = b.plan.Records, b.plan.Span
	b.plan.Steps = append(b.plan.Steps, s)
}

func (b *builder) open(rec *journal.Record) {
	o := &rec.Open
	if b.plan.Conns[o.Conn] != nil {
		return // in the image
	}
	if rec.Position < b.mark && !b.reopen[o.Conn] {
		return
	}
	if o.Conn >= b.plan.NextID {
		b.plan.NextID = o.Conn + 1
	}
	c := &Conn{ConnState: ConnState{
		ID: o.Conn, Direction: o.Direction, Client: o.Client, Dest: o.Server,
		LegPort: o.LegPort, Opened: rec.Position,
	}}
	b.plan.Conns[o.Conn] = c
	if o.Direction == journal.Out {
		c.Opening = true
		b.plan.Outgoing = append(b.plan.Outgoing, c)
		return
	}
	b.step(Step{Kind: Open, Conn: c})
}

func (b *builder) input(c *Conn, rec *journal.Record) error {
	end := rec.Offset + uint64(len(rec.Payload))
	have := c.Start + uint64(len(c.Input))
	if end <= have {
		return nil // before the cut
	}
	if rec.Offset > have {
		return fmt.Errorf("%w: connection %d has input up to %d, the next record begins at %d", ErrIncomplete, c.ID, have, rec.Offset)
	}
	c.Input = append(c.Input, rec.Payload[have-rec.Offset:]...)
	c.gates = append(c.gates, gate{end: end, out: rec.OutPos, seq: b.plan.Records})
	b.inputs = append(b.inputs, arrival{c, end})
	return nil
}

func (b *builder) consumed(c *Conn, upto uint64) {
	if upto == 0 && c.Opening {
		c.Opening = false
		b.step(Step{Kind: Connect, Conn: c})
	}
	if upto <= c.consumed {
		return
	}
	from, g := c.consumed, c.gateFor(upto)
	c.consumed = upto
	defer b.shutIfDue(c)
	if n := len(b.plan.Steps); n > 0 {
		last := &b.plan.Steps[n-1]
		if last.Kind == Feed && last.Conn == c && last.Gate == g && upto-last.From <= maxMerge {
			last.Upto, last.At = upto, b.plan.Span
			return
		}
	}
	b.step(Step{Kind: Feed, Conn: c, From: from, Upto: upto, Gate: g})
}

// shutIfDue places the client's FIN right behind the consumption of the last
// byte before it.
func (b *builder) shutIfDue(c *Conn) {
	if c.shutAt && c.consumed >= c.end() {
		c.shutAt = false
		b.step(Step{Kind: Shut, Conn: c, Upto: c.end()})
	}
}

func (b *builder) output(c *Conn, rec *journal.Record) {
	o := Output{Offset: rec.Offset, Length: rec.Length, Hash: rec.Hash, Seq: b.plan.Records}
	if rec.Type == journal.TypeOutputBytes {
		o.Length = uint32(len(rec.Payload))
		o.Bytes = append([]byte(nil), rec.Payload...)
	}
	from := uint64(0)
	if c.Image != nil {
		from = c.Image.Acked
	}
	if o.End() > from {
		c.Outputs = append(c.Outputs, o)
	}
}

// urgent has the application told of urgent data before it has read up to there.
func (b *builder) urgent(c *Conn, at uint64) {
	if at < c.Start {
		return
	}
	c.Urgent = append(c.Urgent, at)
	if at >= c.consumed {
		b.step(Step{Kind: Urge, Conn: c, From: c.consumed, Upto: at + 1, Gate: c.gateFor(at + 1)})
	}
}

// failed ends a connection that the application could not open.
func (b *builder) failed(c *Conn, errno unix.Errno) {
	if !c.Opening {
		return
	}
	c.Opening, c.Ended = false, true
	b.step(Step{Kind: Fail, Conn: c, Errno: errno})
}

func (b *builder) close(c *Conn, rec *journal.Record) {
	if rec.Direction == journal.Out {
		c.AppEnded = !c.Ended
		return // it ends again by itself
	}
	if c.Image != nil && c.InClosed {
		return // the FIN is in the image
	}
	c.Ended = true
	if c.Opening { // as version 1 of the journal has it
		errno := unix.ECONNREFUSED
		if rec.Close == journal.FIN {
			errno = unix.EHOSTUNREACH
		}
		b.failed(c, errno)
		return
	}
	if rec.Close == journal.RST {
		b.step(Step{Kind: Reset, Conn: c})
		c.reset = len(b.plan.Steps)
		return
	}
	c.shutAt = true
	b.shutIfDue(c)
}

// tail adds the rest of a connection's input from an offset on, as far as it may be
// delivered at once, and returns where that ends. What was sent after an answer waits
// for that; what the answer is to does not, although nobody saw it consumed before
// the crash.
func (b *builder) tail(c *Conn, from uint64) (upto uint64) {
	out := c.gateFor(from + 1)
	// The output position only grows.
	if i := sort.Search(len(c.gates), func(i int) bool { return c.gates[i].out > out }); i > 0 {
		upto = c.gates[i-1].end
	}
	if upto <= from {
		upto = c.end()
	}
	b.step(Step{Kind: Tail, Conn: c, From: from, Upto: upto, Gate: out})
	return upto
}

// finish adds what had reached the shim but was not seen consumed, in the order in
// which it came: the application may have taken it, and answered.
func (b *builder) finish() {
	upto := map[*Conn]uint64{}
	for _, in := range b.inputs {
		c := in.conn
		from, seen := upto[c]
		if !seen {
			b.plan.Bytes += int64(len(c.Input))
			from = max(c.consumed, c.Start)
		}
		if c.reset == 0 && in.end > from {
			from = b.tail(c, from)
		}
		upto[c] = from
	}
	for _, d := range b.arrived {
		if !d.taken {
			b.plan.Untaken = append(b.plan.Untaken, d)
		}
	}
	for _, c := range b.plan.Conns {
		if c.shutAt {
			b.step(Step{Kind: Shut, Conn: c, Upto: c.end()})
		}
		// The application can take input that was queued when the RST came;
		// what it never took must not reach it.
		if c.reset > 0 {
			b.plan.Steps[c.reset-1].Upto = c.consumed
		}
	}
}
