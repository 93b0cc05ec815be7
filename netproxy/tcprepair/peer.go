package tcprepair

import (
	"fmt"
	"net/netip"
)

// Peer is the application's end of a connection as CRIU's image has it
// (tcp_stream_entry, with the addresses of the socket's file entry).
type Peer struct {
	Local, Remote netip.AddrPort
	// Family is the socket's, AF_INET6 also for a v4-mapped one.
	Family int
	// State is the kernel's number of the TCP state (TCP_ESTABLISHED is 1).
	State uint8
	// InqSeq is rcv_nxt, OutqSeq write_seq; lengths are in bytes and without
	// FINs; UnsqLen is the part of OutqLen that was never sent.
	InqSeq, InqLen, OutqSeq, OutqLen, UnsqLen uint32
	// OptMask are TCPI_OPT_* bits.
	OptMask, SndWscale, RcvWscale, MSSClamp, Timestamp uint32
	// The window, in bytes, as TCP_REPAIR_WINDOW has it; valid if HasWindow.
	SndWl1, SndWnd, MaxWindow, RcvWnd, RcvWup uint32
	HasWindow                                 bool
}

// TCP states (include/net/tcp_states.h).
const (
	stateEstablished = 1
	stateFinWait1    = 4
	stateFinWait2    = 5
	stateCloseWait   = 8
	stateLastAck     = 9
	stateClosing     = 11
)

// TCPI_OPT_* bits of tcpi_options (linux/tcp.h).
const (
	optTimestamps = 1
	optSACK       = 2
	optWscale     = 4
)

// Mirror is the state of the leg that fits a Peer.
type Mirror struct {
	// Snd is the sequence number of the leg's next byte, which is the first
	// input byte that the application's kernel has not received. The input
	// stream up to it is in the application's image and must not come again.
	Snd uint32
	// Rcv is the sequence number of the first output byte to arrive. Output
	// from here on is in the application's send queue (or not yet made) and
	// comes again.
	Rcv uint32
	// Sent is the sequence number after the last output byte that the
	// application's kernel had sent. Between Rcv and Sent lies what was on its way
	// or unacknowledged; on loopback it is in the old leg's receive queue.
	Sent uint32
	// Copied is the sequence number of the first input byte that the application
	// itself has not read, and the first that the restored socket receives.
	Copied uint32
	// InputEnded: the application's kernel has received the end of the input.
	// Activate sends it again, which is harmless and completes the leg's state.
	InputEnded bool
	// OutputEnded: the application has ended its output and the end was
	// acknowledged, so its kernel will not send it again: the leg's side has to
	// be told by Restore.
	OutputEnded bool
	// SndWnd and RcvWnd are the windows, in bytes.
	SndWnd, RcvWnd uint32
}

// MirrorOf computes the leg's state. ErrState for a connection that has no leg,
// ErrPeer for an image that cannot be right.
func MirrorOf(p *Peer) (Mirror, error) {
	m := Mirror{Snd: p.InqSeq, Rcv: p.OutqSeq}
	switch p.State {
	case stateEstablished:
	case stateFinWait1:
		m.Rcv-- // the unacknowledged FIN comes again, after the data
	case stateFinWait2:
		m.Rcv--
		m.OutputEnded = true
	case stateCloseWait:
		m.InputEnded = true
	case stateLastAck, stateClosing:
		m.InputEnded = true
		m.Rcv--
	default:
		return Mirror{}, fmt.Errorf("%w: state %d", ErrState, p.State)
	}
	if m.InputEnded {
		m.Snd-- // inq_seq counts the FIN
	}
	if p.UnsqLen > p.OutqLen || m.OutputEnded && p.OutqLen > 0 {
		return Mirror{}, fmt.Errorf("%w: %d bytes unsent of %d in state %d", ErrPeer, p.UnsqLen, p.OutqLen, p.State)
	}
	m.Sent = m.Rcv - p.UnsqLen
	m.Rcv -= p.OutqLen
	m.Copied = m.Snd - p.InqLen
	if p.HasWindow {
		// What the application's kernel has announced and not yet got.
		if room := p.RcvWnd - (p.InqSeq - p.RcvWup); int32(room) > 0 {
			m.SndWnd = room
		}
		if m.InputEnded {
			m.SndWnd++
		}
		m.RcvWnd = p.SndWnd
	}
	return m, nil
}
