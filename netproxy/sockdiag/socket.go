package sockdiag

import (
	"encoding/binary"
	"net/netip"
)

// State is the state of a TCP connection as the kernel numbers it
// (include/net/tcp_states.h).
type State uint8

// States a socket can be reported in.
const (
	Established State = iota + 1
	SynSent
	SynRecv
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
	NewSynRecv
)

// States is a set of State.
type States uint32

// AllStates selects sockets whatever their state.
const AllStates States = 0xffff

// Of makes a set.
func Of(states ...State) States {
	var s States
	for _, st := range states {
		s |= 1 << st
	}
	return s
}

// Tuple names a TCP connection from the side of its own socket.
type Tuple struct {
	Local, Remote netip.AddrPort
}

// Socket is what the kernel tells of one socket.
type Socket struct {
	Tuple
	State State
	// IPv6 tells that it is an AF_INET6 socket, also when its addresses are IPv4.
	IPv6 bool
	// Queue lengths in bytes. For a listener RecvQueue is the number of
	// connections waiting to be accepted and SendQueue the backlog.
	RecvQueue, SendQueue uint32
	// Inode of the socket file, 0 for an orphan, a request or a TIME_WAIT.
	Inode uint32
	UID   uint32
	// Mark is SO_MARK; always 0 for a TIME_WAIT.
	Mark uint32
	// ReceiveBuffer is SO_RCVBUF, filled by DumpUDP only.
	ReceiveBuffer uint32
	// BytesAcked and BytesReceived are filled by Lookup only (tcpi_bytes_acked,
	// tcpi_bytes_received; a received FIN counts as one byte).
	BytesAcked, BytesReceived uint64

	cookie [8]byte
}

// Cookie is a number that no other socket of this boot has had or will have.
func (s *Socket) Cookie() uint64 { return binary.NativeEndian.Uint64(s.cookie[:]) }
