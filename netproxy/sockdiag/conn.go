package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// Conn is a sock_diag netlink socket of one network namespace. It is not safe
// for concurrent use.
type Conn struct {
	fd      int
	seq     uint32
	out     [requestLen]byte
	in      []byte
	scratch Socket
}

// Open makes a Conn of the network namespace that ns refers to (netns.Current:
// the calling thread's). The caller closes it.
func Open(ns int) (*Conn, error) {
	c := &Conn{fd: -1, in: make([]byte, 32<<10)}
	err := netns.Do(ns, func() (err error) {
		c.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return err
		}
		return unix.Connect(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) // to the kernel
	})
	if err != nil {
		if c.fd >= 0 {
			unix.Close(c.fd)
		}
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	// The kernel answers within the write; the limit only keeps a bug from hanging the shim.
	tv := unix.Timeval{Sec: 2}
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(c.fd)
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	return c, nil
}

// Close releases the netlink socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Lookup fills s with the socket that has exactly the tuple t, whatever its
// state; a listener is never returned. ErrNotFound if there is none.
func (c *Conn) Lookup(t Tuple, s *Socket) error {
	c.seq++
	r := request{
		typ: sockDiagByFamily, flags: unix.NLM_F_REQUEST, seq: c.seq,
		family: family(t), info: true, states: AllStates, tuple: t, cookie: anyCookie(),
	}
	found := false
	err := c.exchange(&r, func(b []byte) error {
		found = true
		return parse(b, s)
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return ErrNotFound
	case err != nil:
		return fmt.Errorf("look up %v-%v: %w", t.Local, t.Remote, err)
	case !found || s.State == Listen || s.Tuple != t:
		return ErrNotFound // the kernel falls back to the listener of the port
	}
	return nil
}

// Dump calls fn for each TCP socket of either family in one of the states, and
// with local port port unless that is 0. fn must not keep its argument nor use
// the Conn. An error of fn ends the dump and is returned.
func (c *Conn) Dump(states States, port uint16, fn func(*Socket) error) error {
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := c.dump(&request{family: fam, states: states}, port, fn); err != nil {
			return fmt.Errorf("dump sockets: %w", err)
		}
	}
	return nil
}

// DumpUDP is Dump for UDP sockets, whose State says whether they are connected:
// Established or Close. RecvQueue is the memory of what waits in them.
func (c *Conn) DumpUDP(port uint16, fn func(*Socket) error) error {
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		r := request{proto: unix.IPPROTO_UDP, family: fam, states: AllStates, memory: true}
		if err := c.dump(&r, port, fn); err != nil {
			return fmt.Errorf("dump UDP sockets: %w", err)
		}
	}
	return nil
}

// Destroy closes the connection s, which Lookup or Dump has filled, as if its
// owner had aborted it: RST to the peer, ECONNABORTED to the owner. A TIME_WAIT
// disappears silently. ErrNotFound if it is gone already.
func (c *Conn) Destroy(s *Socket) error {
	c.seq++
	r := request{
		typ: sockDestroy, flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK, seq: c.seq,
		family: family(s.Tuple), states: AllStates, tuple: s.Tuple, cookie: s.cookie,
	}
	err := c.exchange(&r, func([]byte) error { return nil })
	switch {
	case errors.Is(err, unix.ENOENT):
		return ErrNotFound
	case err != nil:
		return fmt.Errorf("destroy %v-%v: %w", s.Local, s.Remote, err)
	}
	return nil
}

// DestroyTuple looks t up and destroys it. It never touches a listener.
func (c *Conn) DestroyTuple(t Tuple) error {
	if err := c.Lookup(t, &c.scratch); err != nil {
		return err
	}
	return c.Destroy(&c.scratch)
}

func family(t Tuple) uint8 {
	if t.Local.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func (c *Conn) dump(r *request, port uint16, fn func(*Socket) error) error {
	c.seq++
	r.typ, r.flags, r.seq, r.cookie = sockDiagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, c.seq, anyCookie()
	r.tuple = Tuple{Local: netip.AddrPortFrom(netip.Addr{}, port)} // the kernel compares the port only
	var s Socket
	var failed error
	err := c.exchange(r, func(b []byte) error {
		if err := parse(b, &s); err != nil {
			return err
		}
		if failed == nil {
			failed = fn(&s)
		}
		return nil
	})
	if failed != nil {
		return failed
	}
	return err
}

// exchange sends r and hands each answer to fn until the kernel is done.
func (c *Conn) exchange(r *request, fn func([]byte) error) error {
	r.put(&c.out)
	if _, err := unix.Write(c.fd, c.out[:]); err != nil {
		return err
	}
	for {
		n, err := unix.Read(c.fd, c.in)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		done, err := c.answers(r, c.in[:n], fn)
		if err != nil || done {
			return err
		}
	}
}

// answers handles the messages of one datagram; done tells that no more follow.
func (c *Conn) answers(r *request, b []byte, fn func([]byte) error) (done bool, err error) {
	ne := binary.NativeEndian
	for len(b) >= headerLen {
		n := int(ne.Uint32(b))
		if n < headerLen || n > len(b) {
			return true, ErrProtocol
		}
		body := b[headerLen:n]
		typ, flags, seq := ne.Uint16(b[4:]), ne.Uint16(b[6:]), ne.Uint32(b[8:])
		b = b[min(align4(n), len(b)):]
		if seq != r.seq {
			continue // left over from an exchange that failed half-way
		}
		switch typ {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return true, ErrProtocol
			}
			if errno := int32(ne.Uint32(body)); errno != 0 {
				return true, unix.Errno(-errno)
			}
			return true, nil
		}
		if err := fn(body); err != nil {
			return true, err
		}
		done = flags&unix.NLM_F_MULTI == 0
	}
	return done, nil
}
