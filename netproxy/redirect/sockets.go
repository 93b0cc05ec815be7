package redirect

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

// Listeners returns the listening TCP sockets of the namespace, with the inodes
// by which their owners are found, without those of l (which may be nil).
func Listeners(ns int, l *Listener) ([]sockdiag.Socket, error) {
	var out []sockdiag.Socket
	err := withDiag(ns, func(c *sockdiag.Conn) error {
		return c.Dump(sockdiag.Of(sockdiag.Listen), 0, func(s *sockdiag.Socket) error {
			p := s.Local.Port()
			own := l != nil && s.Local.Addr().IsLoopback() && (p == l.Port4 || p == l.Port6)
			if !own {
				out = append(out, *s)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list listeners: %w", err)
	}
	return out, nil
}

// Match says which sockets of the namespace DestroySockets ends. A socket that
// fits any of the criteria is meant; listeners never are, and sockets with
// MarkOwn (the client-side sockets have the same local addresses as the
// application's) only if Tuples names them.
type Match struct {
	// Tuples name single connections, from the side of the socket to destroy.
	Tuples []sockdiag.Tuple
	// Locals are local addresses: all connections of the application from them.
	Locals []netip.AddrPort
	// Ports are local ports, with any address.
	Ports []uint16
}

// DestroySockets ends leftover sockets of a dead application, TIME_WAITs and
// orphans included, so that the four-tuples are free for its next run. It
// returns how many it ended. A socket that vanishes meanwhile is no error.
func DestroySockets(ns int, m Match) (int, error) {
	n := 0
	err := withDiag(ns, func(c *sockdiag.Conn) error {
		for _, t := range m.Tuples {
			if err := count(&n, c.DestroyTuple(t)); err != nil {
				return err
			}
		}
		if len(m.Locals) == 0 && len(m.Ports) == 0 {
			return nil
		}
		doomed, err := m.collect(c)
		if err != nil {
			return err
		}
		for i := range doomed {
			if err := count(&n, c.Destroy(&doomed[i])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("destroy sockets: %w", err)
	}
	return n, nil
}

// collect dumps first and leaves destroying to the caller: the netlink socket
// can do one thing at a time.
func (m *Match) collect(c *sockdiag.Conn) ([]sockdiag.Socket, error) {
	locals := make(map[netip.AddrPort]bool, len(m.Locals))
	for _, a := range m.Locals {
		locals[a] = true
	}
	ports := make(map[uint16]bool, len(m.Ports))
	for _, p := range m.Ports {
		ports[p] = true
	}
	var out []sockdiag.Socket
	err := c.Dump(sockdiag.AllStates&^sockdiag.Of(sockdiag.Listen), 0, func(s *sockdiag.Socket) error {
		if s.Mark&MarkMask != MarkOwn && (locals[s.Local] || ports[s.Local.Port()]) {
			out = append(out, *s)
		}
		return nil
	})
	return out, err
}

func count(n *int, err error) error {
	if errors.Is(err, sockdiag.ErrNotFound) {
		return nil
	}
	if err == nil {
		*n++
	}
	return err
}

func withDiag(ns int, fn func(*sockdiag.Conn) error) error {
	c, err := sockdiag.Open(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(c)
}
