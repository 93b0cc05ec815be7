package order

import (
	"errors"
	"fmt"

	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

// serial is the source that needs only inet_diag. It also answers Consumed for
// the tracepoint source.
type serial struct {
	diag *sockdiag.Conn
	sock sockdiag.Socket
}

func openSerial(ns int) (*serial, error) {
	d, err := sockdiag.Open(ns)
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	return &serial{diag: d}, nil
}

func (s *serial) Poll(func(Event)) error { return nil }

func (s *serial) Serial() bool { return true }

func (s *serial) Crashes() uint64 { return 0 }

// Consumed takes what the socket has ever received less what it holds unread.
// Bytes that wait in the backlog, because the application is in recv on another
// CPU, are in neither. The two counters are read without the socket's lock but
// consistently enough: the queue can only be seen fuller than it is.
func (s *serial) Consumed(t Track) (uint32, error) {
	err := s.diag.Lookup(sockdiag.Tuple{Local: t.App, Remote: t.Leg}, &s.sock)
	if errors.Is(err, sockdiag.ErrNotFound) || err == nil && s.sock.State == sockdiag.TimeWait {
		return 0, fmt.Errorf("%w: %v-%v", ErrGone, t.App, t.Leg)
	}
	if err != nil {
		return 0, err
	}
	return t.Origin + uint32(s.sock.BytesReceived) - s.sock.RecvQueue, nil
}

func (s *serial) Close() error { return s.diag.Close() }
