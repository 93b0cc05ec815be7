package journal

import (
	"fmt"
	"net/netip"
	"time"
)

// Position is a byte of the log. Records are ordered by their positions, which
// stay the same over reopening and trimming. The zero Position is no position.
type Position uint64

// firstPosition is where a new journal starts.
const firstPosition Position = 1

// Type is the type of a record. The values are part of the format.
type Type uint8

const (
	typeCommit Type = 1 // first of each batch; readers see its time only

	TypeOpen        Type = 2 // a connection was opened
	TypeInput       Type = 3 // input was read from the client side
	TypeConsumed    Type = 4 // the application has taken input
	TypeOutput      Type = 5 // fingerprint of output
	TypeOutputBytes Type = 6 // output itself
	TypeClose       Type = 7 // one direction of a connection ended
	TypeMark        Type = 8 // a checkpoint, a recovery or a start

	TypeDatagram      Type = 9  // a datagram for the application
	TypeDatagramTaken Type = 10 // the application has taken one
	TypeDatagramSent  Type = 11 // fingerprint of a datagram that the application sent

	TypeUrgent Type = 12 // a byte of input was sent as urgent data
	TypeFailed Type = 13 // a connection that the application opened did not come about

	TypeRepeated Type = 14 // a request was made again, and answered from its record
)

// String returns the name of the type, as the dump shows it.
func (t Type) String() string {
	return name(int(t), "", "commit", "open", "input", "consumed", "output", "output-bytes", "close", "mark",
		"datagram", "datagram-taken", "datagram-sent", "urgent", "failed", "repeated")
}

// Direction is a direction of flow, seen from the container. Of a connection
// it says who opened it: In is a connection from a client to the container.
type Direction uint8

const (
	In  Direction = 0 // towards the container
	Out Direction = 1 // from the container
)

// String returns "in" or "out".
func (d Direction) String() string { return name(int(d), "in", "out") }

// CloseKind is how a direction ended.
type CloseKind uint8

const (
	FIN CloseKind = 0 // orderly, after the last byte
	RST CloseKind = 1 // by reset: ends both directions
)

// String returns "fin" or "rst".
func (k CloseKind) String() string { return name(int(k), "fin", "rst") }

// MarkKind is what a mark stands for.
type MarkKind uint8

const (
	ContainerStart     MarkKind = 1
	CheckpointBegun    MarkKind = 2
	CheckpointComplete MarkKind = 3
	RecoveryBegun      MarkKind = 4
	RecoveryComplete   MarkKind = 5
)

// String returns the name of the mark, as the dump shows it.
func (k MarkKind) String() string {
	return name(int(k), "", "container-start", "checkpoint-begun", "checkpoint-complete",
		"recovery-begun", "recovery-complete")
}

func name(i int, names ...string) string {
	if i < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

// ConnOpen describes a connection.
type ConnOpen struct {
	// Conn names the connection in all later records.
	Conn uint32
	// Direction is In for a connection from a client, Out for one that the
	// application made.
	Direction Direction
	// Client is who opened the connection: the remote client, or the
	// application's own address.
	Client netip.AddrPort
	// Server is the original destination: the application's address, or the
	// remote server's. Its address family is that of the connection.
	Server netip.AddrPort
	// LegPort is the source port of the leg; 0 if there is none.
	LegPort uint16
}

// Record is one entry of the journal, as a Reader returns it. Which fields are
// set depends on Type.
type Record struct {
	Position Position  // where the record starts
	End      Position  // where the next one starts
	Time     time.Time // when its batch began; zero before the reader has met the start of a batch
	Type     Type

	Conn uint32 // all but TypeMark and those of datagrams

	// Offset is a position in a stream of the connection, bytes from its
	// start: of the first byte (Input, Output, OutputBytes), of the first
	// byte not yet taken (Consumed), of the end (Close), of the byte (Urgent), or
	// of the first byte of the request (Repeated).
	Offset uint64
	// OutPos is how many bytes of output the client had been sent when this
	// input was read (Input).
	OutPos uint64
	// Payload is valid until the next call of Next (Input, OutputBytes, Datagram).
	Payload []byte
	// Length and Hash are the number of output bytes from Offset and their
	// xxhash64 with seed 0 (Output).
	Length uint32
	Hash   uint64

	// Source and Dest are the ends of a datagram, and Sent is how many the
	// application had sent when it came (Datagram).
	Source, Dest netip.AddrPort
	Sent         uint64
	// Of is the position of the datagram that was taken (DatagramTaken).
	Of Position
	// Flow is the xxhash64 of a sent datagram's ends; Hash that of its payload
	// (DatagramSent).
	Flow uint64

	Errno uint32 // Linux's number of the error (Failed)

	Open       ConnOpen  // TypeOpen
	Direction  Direction // TypeClose
	Close      CloseKind // TypeClose
	Mark       MarkKind  // TypeMark
	Checkpoint uint64    // number of the checkpoint (Mark)
}
