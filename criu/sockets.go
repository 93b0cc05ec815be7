package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	tcp_stream "github.com/checkpoint-restore/go-criu/v7/crit/images/tcp-stream"
	"golang.org/x/sys/unix"
)

// TCPSocket is a TCP socket of the application as it was at the cut.
//
// The fields after State are those of CRIU's tcp_stream_entry, in its units
// (bytes, sequence numbers, shifts, kernel TCPI_OPT bits); they are zero for
// listening sockets.
type TCPSocket struct {
	Local, Remote netip.AddrPort // as the application sees them; never IPv4-mapped
	Family        int            // AF_INET or AF_INET6 of the application's socket
	State         uint8          // Linux TCP state: 1 ESTABLISHED, 8 CLOSE_WAIT, 10 LISTEN, ...

	InqSeq, InqLen, OutqSeq, OutqLen, UnsqLen          uint32
	OptMask, SndWscale, RcvWscale, MSSClamp, Timestamp uint32
	SndWl1, SndWnd, MaxWindow, RcvWnd, RcvWup          uint32
	HasWindow                                          bool // the image carries the window fields
}

// Connected reports whether the socket has been connected to its peer.
func (s *TCPSocket) Connected() bool { return s.State != tcpListen && s.State != tcpSynSent }

// TCP states, from the kernel's include/net/tcp_states.h.
const (
	tcpSynSent = 2
	tcpClose   = 7
	tcpListen  = 10
	tcpStates  = 13 // one more than the last
)

// maxSockets bounds what is kept of one checkpoint.
const maxSockets = 1 << 20

// TCPSockets returns the TCP sockets of a checkpoint, connections and listeners,
// in the order of the image. Bound sockets that neither listen nor are
// connected are left out. A malformed image is ErrCorrupt.
func TCPSockets(images string) ([]TCPSocket, error) { return tcpSockets(os.DirFS(images)) }

func tcpSockets(images fs.FS) ([]TCPSocket, error) {
	var out []TCPSocket
	err := eachInet(images, func(e *sk_inet.InetSkEntry) error {
		if e.GetProto() != unix.IPPROTO_TCP || e.GetType() != unix.SOCK_STREAM || e.GetState() == tcpClose {
			return nil
		}
		if len(out) == maxSockets {
			return fmt.Errorf("%w: more than %d sockets", ErrCorrupt, maxSockets)
		}
		s, err := newTCPSocket(e)
		if err != nil {
			return err
		}
		if s.State != tcpListen {
			if err := s.loadStream(images, e.GetIno()); err != nil {
				return err
			}
		}
		out = append(out, s)
		return nil
	})
	return out, err
}

func eachInet(images fs.FS, fn func(*sk_inet.InetSkEntry) error) error {
	return eachFile(images, func(e *fdinfo.FileEntry) error {
		if e.GetType() != fdinfo.FdTypes_INETSK {
			return nil
		}
		if e.GetIsk() == nil {
			return fmt.Errorf("%w: socket %d without a body", ErrCorrupt, e.GetId())
		}
		return fn(e.GetIsk())
	})
}

func eachFile(images fs.FS, fn func(*fdinfo.FileEntry) error) error {
	return readEntries(images, "files.img", magicFiles, fn)
}

func newTCPSocket(e *sk_inet.InetSkEntry) (TCPSocket, error) {
	if e.GetState() == 0 || e.GetState() >= tcpStates {
		return TCPSocket{}, fmt.Errorf("%w: socket %#x in TCP state %d", ErrCorrupt, e.GetIno(), e.GetState())
	}
	local, err := addrPort(e, e.GetSrcAddr(), e.GetSrcPort())
	if err != nil {
		return TCPSocket{}, err
	}
	s := TCPSocket{Local: local, Family: int(e.GetFamily()), State: uint8(e.GetState())}
	if s.State != tcpListen {
		s.Remote, err = addrPort(e, e.GetDstAddr(), e.GetDstPort())
	}
	return s, err
}

// addrPort decodes an address: CRIU stores its bytes, in network order, as
// numbers of the machine's.
func addrPort(e *sk_inet.InetSkEntry, words []uint32, port uint32) (netip.AddrPort, error) {
	bad := func() (netip.AddrPort, error) {
		return netip.AddrPort{}, fmt.Errorf("%w: socket %#x of family %d has an address of %d words and port %d",
			ErrCorrupt, e.GetIno(), e.GetFamily(), len(words), port)
	}
	if port > 0xffff {
		return bad()
	}
	var raw [16]byte
	for i, w := range words[:min(len(words), 4)] {
		binary.NativeEndian.PutUint32(raw[4*i:], w)
	}
	switch {
	// CRIU writes four words for both families (PB_ALEN_INET6).
	case e.GetFamily() == unix.AF_INET && (len(words) == 1 || len(words) == 4):
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[:4])), uint16(port)), nil
	case e.GetFamily() == unix.AF_INET6 && len(words) == 4:
		return netip.AddrPortFrom(netip.AddrFrom16(raw).Unmap(), uint16(port)), nil
	}
	return bad()
}

// loadStream reads the state of the connection.
func (s *TCPSocket) loadStream(images fs.FS, ino uint32) error {
	found := false
	// The queues' bytes follow the only entry, so reading stops after it.
	err := readEntries(images, fmt.Sprintf("tcp-stream-%x.img", ino), magicTCPStream, func(m *tcp_stream.TcpStreamEntry) error {
		s.fill(m)
		found = true
		return errStop
	})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: socket %#x in state %d has no stream: %w", ErrCorrupt, ino, s.State, err)
	}
	if err == nil && !found {
		return fmt.Errorf("%w: stream of socket %#x is empty", ErrCorrupt, ino)
	}
	return err
}

func (s *TCPSocket) fill(m *tcp_stream.TcpStreamEntry) {
	s.InqSeq, s.InqLen = m.GetInqSeq(), m.GetInqLen()
	s.OutqSeq, s.OutqLen, s.UnsqLen = m.GetOutqSeq(), m.GetOutqLen(), m.GetUnsqLen()
	s.OptMask, s.MSSClamp, s.Timestamp = m.GetOptMask(), m.GetMssClamp(), m.GetTimestamp()
	s.SndWscale, s.RcvWscale = m.GetSndWscale(), m.GetRcvWscale()
	s.HasWindow = m.SndWl1 != nil && m.SndWnd != nil && m.MaxWindow != nil && m.RcvWnd != nil && m.RcvWup != nil
	if s.HasWindow {
		s.SndWl1, s.SndWnd, s.MaxWindow = m.GetSndWl1(), m.GetSndWnd(), m.GetMaxWindow()
		s.RcvWnd, s.RcvWup = m.GetRcvWnd(), m.GetRcvWup()
	}
}
