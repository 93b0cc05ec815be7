package order

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/cilium/ebpf/btf"
)

// Event says that the application has taken input of one connection.
type Event struct {
	// LegPort is the port that the application sees as its peer's: the leg's, or
	// that of the server the application has connected to.
	LegPort uint16
	// AppPort is the application's local port.
	AppPort uint16
	// Peer is the end of the address that the application sees as its peer's
	// (PeerOf). The three together identify the connection.
	Peer uint32
	// CopiedSeq is the sequence number of the first input byte not yet taken.
	// A received end of the input counts as one byte.
	CopiedSeq uint32
	// Datagram: the application took a datagram from a UDP socket on AppPort;
	// the other fields mean nothing.
	Datagram bool
}

// PeerOf is the last four bytes of an address, as Event.Peer has them.
func PeerOf(a netip.Addr) uint32 {
	b := a.As16()
	return binary.BigEndian.Uint32(b[12:])
}

// Track identifies an application's socket and places its stream.
type Track struct {
	// App is the application's address, Leg the one it sees as its peer's.
	App, Leg netip.AddrPort
	// Origin is the sequence number of the first byte that the socket received
	// in its life: the input base of a fresh leg, Mirror.Copied of a restored one.
	Origin uint32
}

// Source tells in which order, and how far, the application has consumed the
// input of its sockets. No method may run concurrently with another.
type Source interface {
	// Poll calls fn for every advance since the last Poll, in the order in which
	// the application took the data, and never blocks. It may repeat a position,
	// and it reports connections that the caller does not know. ErrOrderLost
	// comes after all events were reported. A serial source has none.
	Poll(fn func(Event)) error
	// Serial reports that the source can only follow one connection at a time:
	// the caller waits for one input to be consumed, using Consumed, before it
	// delivers the next.
	Serial() bool
	// Consumed returns the application's position on one connection, as
	// Event.CopiedSeq. What is still in flight, or in the socket's backlog, is
	// not consumed. ErrGone if there is no such socket.
	Consumed(t Track) (copiedSeq uint32, err error)
	// Crashes counts the processes of the network namespace that have begun to
	// exit, other than with code 0. What a process learns of the end of another, by
	// a signal, a closed pipe or socket, it learns after the count. It is a load
	// from memory. A serial source always returns 0.
	Crashes() uint64
	// Close releases the source.
	Close() error
}

// Kind is a kind of source.
type Kind string

// Kinds of sources.
const (
	// Auto takes Tracepoint where it works and Serial elsewhere.
	Auto       Kind = "auto"
	Tracepoint Kind = "tracepoint"
	Serial     Kind = "serial"
)

// Options say what to watch.
type Options struct {
	// Kind selects the source; empty means Auto.
	Kind Kind
	// NetNS is a descriptor of the container's network namespace, or
	// netns.Current. It is used only during Open.
	NetNS int
	// LowPort and HighPort bound the leg ports, inclusive.
	LowPort, HighPort uint16
	// Outgoing watches the connections that the application opens as well,
	// whatever their ports, but those to 127.0.0.0/8.
	Outgoing bool
	// Datagrams watches UDP sockets as well, of all ports. It needs Linux 6.3.
	Datagrams bool
	// OwnMark under OwnMask is the mark of our own sockets, which are not watched.
	// A zero mask means redirect's marks.
	OwnMark, OwnMask uint32
	// LegPriority is the SO_PRIORITY of legs, which are not watched either. 0 means
	// redirect's.
	LegPriority uint32
	// RingBytes is the size of the event ring, a power of two and a multiple of
	// the page size; an event takes 24 bytes. 0 means 4 MiB, some 170,000 events.
	RingBytes int
	// Types are the kernel's; nil: they are read.
	Types *btf.Spec
}

const (
	defaultRingBytes = 4 << 20
	minRingBytes     = 4096
)

func (o *Options) defaultsAndValidate(mark, mask, legPriority uint32) error {
	if o.Kind == "" {
		o.Kind = Auto
	}
	if o.RingBytes == 0 {
		o.RingBytes = defaultRingBytes
	}
	if o.OwnMask == 0 {
		o.OwnMark, o.OwnMask = mark, mask
	}
	if o.LegPriority == 0 {
		o.LegPriority = legPriority
	}
	switch {
	case o.Kind != Auto && o.Kind != Tracepoint && o.Kind != Serial:
		return fmt.Errorf("%w: kind %q: want auto, tracepoint or serial", ErrOptions, o.Kind)
	case o.LowPort == 0 || o.LowPort > o.HighPort:
		return fmt.Errorf("%w: leg ports %d-%d", ErrOptions, o.LowPort, o.HighPort)
	case o.RingBytes < minRingBytes || bits.OnesCount(uint(o.RingBytes)) != 1:
		return fmt.Errorf("%w: ring of %d bytes: want a power of two from %d", ErrOptions, o.RingBytes, minRingBytes)
	}
	return nil
}
