package replay

import (
	"net/netip"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
)

// Table is where every connection stood at a cut, as the proxy saw it while
// the container's tasks were frozen. It is stored with the checkpoint.
type Table struct {
	// Mark is the journal position of the cut: what was journaled before it was
	// consumed before the checkpoint, but for what the connections say.
	Mark journal.Position `json:"mark"`
	// ScanFrom is where reading the journal must begin; at most Mark.
	ScanFrom journal.Position `json:"scanFrom"`
	// NextID is the first connection number not yet given out.
	NextID uint32      `json:"nextId"`
	Conns  []ConnState `json:"connections"`
	// Datagrams are those that the application had been given and had not taken,
	// by position: no checkpoint holds what waits in a UDP socket.
	Datagrams []journal.Position `json:"datagrams,omitempty"`
	// Sent is how many datagrams the application had sent.
	Sent uint64 `json:"sent,omitempty"`
}

// ConnState is one connection at the cut. Offsets are in bytes since the
// connection was opened.
type ConnState struct {
	ID uint32 `json:"id"`
	// Direction is In for a connection from a client, Out for one that the
	// application opened.
	Direction journal.Direction `json:"direction"`
	Client    netip.AddrPort    `json:"client"` // who opened it
	Dest      netip.AddrPort    `json:"dest"`
	// LegPort is the source port of the leg (In), or of our socket towards the
	// server (Out).
	LegPort uint16 `json:"legPort"`
	// InBase and OutBase are the sequence numbers of offset 0 in the
	// application's receive and send directions.
	InBase  uint32 `json:"inBase"`
	OutBase uint32 `json:"outBase"`
	// InSent bytes of input were written to the leg, InConsumed taken by the
	// application, OutRead bytes of output read from the leg.
	InSent     uint64 `json:"inSent"`
	InConsumed uint64 `json:"inConsumed"`
	OutRead    uint64 `json:"outRead"`
	// Opened is the position of the connection's Open record.
	Opened journal.Position `json:"opened"`
	// Opening: the application was about to open it (Out) and had no answer.
	Opening bool `json:"opening,omitempty"`
	// AppClosed: the application had closed its end.
	AppClosed bool `json:"appClosed"`
	// InClosed: the client had closed its end and the leg was shut down.
	InClosed bool `json:"inClosed"`
}

// Local is the application's own end of its socket.
func (c *ConnState) Local() netip.AddrPort {
	if c.Direction == journal.Out {
		return c.Client
	}
	return c.Dest
}

// Peer is the other end, as the application sees it.
func (c *ConnState) Peer() netip.AddrPort {
	if c.Direction == journal.Out {
		return c.Dest
	}
	return netip.AddrPortFrom(c.Client.Addr(), c.LegPort)
}

// Socket is what the checkpoint's image says of one application socket.
type Socket struct {
	Received uint64 // input offset up to which the socket had received
	Consumed uint64 // input offset up to which the application had taken it
	Acked    uint64 // output offset up to which our kernel had acknowledged
}

// Output is a stretch of recorded output, by hash or by its bytes.
type Output struct {
	Offset uint64
	Length uint32
	Hash   uint64 // xxhash64, when Bytes is nil
	Bytes  []byte
	// Seq orders the outputs of all connections as they were read.
	Seq int
}

// End is the offset behind the stretch.
func (o *Output) End() uint64 { return o.Offset + uint64(o.Length) }

// Kind tells what a step does.
type Kind uint8

// The kinds of steps.
const (
	Open  Kind = iota // open the connection again
	Feed              // deliver input up to Upto and wait until it is consumed
	Tail              // deliver input up to Upto; nothing says when it is consumed
	Urge              // deliver input up to Upto, which ends with urgent data
	Shut              // the client's FIN
	Reset             // the client's RST

	Connect // the server's answer to a connection that the application opens
	Fail    // the same, with an error

	Receive // deliver a datagram and wait until it is taken
)

// Step is one action of a replay.
type Step struct {
	Kind Kind
	Conn *Conn // nil for Receive
	// Datagram is what Receive delivers.
	Datagram *Datagram
	From     uint64     // input offset at which the step begins (Feed, Tail)
	Upto     uint64     // input offset
	Gate     uint64     // output offset that must have been produced again before
	Errno    unix.Errno // Fail
	// Answer is the output offset up to which the input was answered, if the plan
	// is Arranged; 0: it was not.
	Answer uint64
	// Late: a request that nobody had answered (PutOff).
	Late bool
	// At is when what the step stands for had happened, since the first record after
	// the cut.
	At time.Duration

	seq int // of the record, as Output.Seq
}

// Conn is one connection of a plan.
type Conn struct {
	ConnState
	// Image is the application's socket in the checkpoint; nil when the
	// connection is to be opened again.
	Image *Socket
	// Input holds the bytes from offset Start on.
	Input []byte
	Start uint64
	// Urgent are the offsets of the bytes that were sent as urgent data.
	Urgent []uint64
	// Outputs are the recorded outputs from the cut on, in order.
	Outputs []Output
	// Ended: the client ended the connection in the recorded run. AppEnded: the
	// application did, and first.
	Ended, AppEnded bool

	consumed uint64 // highest offset with a Feed step
	repeated []uint64
	gates    []gate
	shutAt   bool // a FIN waits for the input before it to be consumed
	reset    int  // index of the Reset step plus one
}

// gate is input up to an offset, which came when the client had been sent the output
// up to another.
type gate struct {
	end, out uint64
	seq      int // of the record, as Output.Seq
}

// ConsumedMark is the input offset up to which the journal already says that
// the application consumed it.
func (c *Conn) ConsumedMark() uint64 { return c.consumed }

// end is the offset behind the input that is known.
func (c *Conn) end() uint64 { return c.Start + uint64(len(c.Input)) }

// Slice returns the input bytes [from, upto); both are clamped to what is held.
func (c *Conn) Slice(from, upto uint64) []byte {
	from, upto = max(from, c.Start), min(upto, c.end())
	if from >= upto {
		return nil
	}
	return c.Input[from-c.Start : upto-c.Start]
}

// gateFor is the output offset that must precede input up to upto.
func (c *Conn) gateFor(upto uint64) uint64 { return c.gateOf(upto).out }

func (c *Conn) gateOf(upto uint64) gate {
	if upto <= c.Start {
		return gate{} // it is in the image
	}
	// The first stretch that reaches upto holds its last byte; its gate is the
	// largest, since the output position only grows.
	i := sort.Search(len(c.gates), func(i int) bool { return c.gates[i].end >= upto })
	if i == len(c.gates) {
		if i == 0 {
			return gate{}
		}
		i--
	}
	return c.gates[i]
}

// Datagram is one for the application.
type Datagram struct {
	Position     journal.Position // of its record
	Source, Dest netip.AddrPort
	Payload      []byte
	// Sent is how many datagrams the application had sent since the cut when it
	// came.
	Sent uint64

	taken bool
}

// Reply is the fingerprint of a datagram that the application sent.
type Reply struct {
	Flow, Hash uint64
}

// Due reports whether the other end had sent input beyond offset sent when it had
// out bytes of output.
func (c *Conn) Due(sent, out uint64) bool {
	return sent < c.end() && c.gateFor(sent+1) <= out
}

// Unused reports that nothing was said on the connection.
func (c *Conn) Unused() bool { return len(c.Input)+len(c.Outputs) == 0 }

// Plan is a whole replay.
type Plan struct {
	// Conns by number. Those with Image are re-created before the restore.
	Conns map[uint32]*Conn
	Steps []Step
	// Outgoing are the connections that the application opens again, in the
	// order in which it had.
	Outgoing []*Conn
	// Untaken are the datagrams that the application never took, in the order in
	// which they came. They are not among the steps.
	Untaken []*Datagram
	// Replies are the datagrams that the application sent after the cut, in that
	// order.
	Replies []Reply
	NextID  uint32
	Records int   // journal records that were read
	Bytes   int64 // input bytes that will be fed
	// Span is the time in which the records came.
	Span time.Duration
	// Fresh: there is no checkpoint, and the time before the first record is unknown.
	Fresh bool
	// Arranged: the steps are in the order of answers (ByAnswers).
	Arranged bool
}
