package nfqueue

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// Verdict is what happens to a packet.
type Verdict uint32

const (
	// Drop forgets the packet; its sender knows nothing of it.
	Drop Verdict = 0
	// Accept lets it go on behind the rule's chain.
	Accept Verdict = 1
	// Repeat sends it through the chain once more.
	Repeat Verdict = 4
)

// Packet is one that waits for its verdict.
type Packet struct {
	ID uint32
	// Loopback tells that the packet came in over lo.
	Loopback bool
	// Payload is the packet from its network header on, cut off after Range
	// bytes, or as many as Options say. Valid until fn of Receive returns.
	Payload []byte
	// Cut: the packet is longer.
	Cut bool
}

// Options say what a queue holds. The zero value is for SYNs.
type Options struct {
	// Whole asks for packets of any length, up to the MaxCopy bytes that a
	// message can hold.
	Whole bool
	// ReceiveBuffer is that of the netlink socket, in bytes; 0: the system's
	// default. Packets for which it has no room are dropped.
	ReceiveBuffer int
}

// MaxCopy is the most that is copied of a packet, in bytes
// (net/netfilter/nfnetlink_queue.c).
const MaxCopy = 0xffff - attrHeaderLen

const (
	// Range is how much of a packet is copied, in bytes: all headers.
	Range = 256
	// MaxLength is how many packets wait at most; further ones are dropped.
	MaxLength = 4096
)

// Numbers of queues that are tried. Others may use queues too, usually those
// with small numbers.
const (
	firstQueue = 52100
	lastQueue  = 52355
)

// ErrNoQueue is returned by Open when all numbers are taken.
var ErrNoQueue = errors.New("no free netfilter queue")

// Conn is an open queue. It is not safe for concurrent use.
type Conn struct {
	fd     int
	copied uint32 // bytes of a packet
	queue  uint16
	seq    uint32
	in     []byte
	out    []byte
}

// Open is OpenWith the zero Options.
func Open(ns int) (*Conn, error) { return OpenWith(ns, Options{}) }

// OpenWith takes the first free queue of the network namespace ns (netns.Current:
// the calling thread's). ErrNoQueue, or the kernel's error: EOPNOTSUPP or
// EPROTONOSUPPORT where it has no queues. The caller closes the Conn.
func OpenWith(ns int, o Options) (*Conn, error) {
	c := &Conn{fd: -1, copied: Range, in: make([]byte, 16<<10)}
	if o.Whole {
		c.copied, c.in = MaxCopy, make([]byte, MaxCopy+4096)
	}
	err := netns.Do(ns, func() (err error) {
		c.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		if o.ReceiveBuffer > 0 {
			if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, o.ReceiveBuffer); err != nil {
				return err
			}
		}
		return unix.Connect(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	if err == nil {
		err = c.bind()
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("open netfilter queue: %w", err)
	}
	return c, nil
}

func (c *Conn) bind() error {
	for q := firstQueue; q <= lastQueue; q++ {
		c.queue = uint16(q)
		err := c.configure(attrConfigCommand, []byte{commandBind, 0, 0, 0})
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EPERM) {
			continue // another's
		}
		if err != nil {
			return err
		}
		if err := c.configure(attrConfigParams, append(be32(c.copied), copyPacket)); err != nil {
			return err
		}
		return c.configure(attrConfigLength, be32(MaxLength))
	}
	return ErrNoQueue
}

// configure sends one setting and waits for the kernel's answer, which is there
// when the write returns.
func (c *Conn) configure(typ uint16, value []byte) error {
	c.seq++
	c.out = end(attr(begin(c.out[:0], msgConfig, unix.NLM_F_ACK, c.seq, c.queue), typ, value))
	if _, err := unix.Write(c.fd, c.out); err != nil {
		return err
	}
	n, err := unix.Read(c.fd, c.in)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	b := c.in[:n]
	if len(b) < netlinkLen+4 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(b[8:]) != c.seq {
		return ErrProtocol
	}
	if errno := int32(binary.NativeEndian.Uint32(b[netlinkLen:])); errno != 0 {
		return unix.Errno(-errno)
	}
	return nil
}

// FD is readable when packets wait.
func (c *Conn) FD() int { return c.fd }

// Queue is the number of the queue, for the rule.
func (c *Conn) Queue() uint16 { return c.queue }

// Receive calls fn for each packet that has come, and never blocks. Packets
// which the kernel could not tell of, for lack of memory, it has dropped: no
// error.
func (c *Conn) Receive(fn func(*Packet)) error {
	for {
		n, err := unix.Read(c.fd, c.in)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOBUFS):
			continue
		case err != nil:
			return fmt.Errorf("read netfilter queue: %w", err)
		}
		if err := each(c.in[:n], fn); err != nil {
			return fmt.Errorf("read netfilter queue: %w", err)
		}
	}
}

// each goes through the messages of one datagram. Answers to verdicts on packets
// that the kernel has flushed meanwhile are skipped.
func each(b []byte, fn func(*Packet)) error {
	for len(b) >= netlinkLen {
		n := int(binary.NativeEndian.Uint32(b))
		if n < netlinkLen || n > len(b) {
			return ErrProtocol
		}
		if binary.NativeEndian.Uint16(b[4:]) == msgPacket {
			p, err := parsePacket(b[netlinkLen:n])
			if err != nil {
				return err
			}
			fn(&p)
		}
		b = b[min(align4(n), len(b)):]
	}
	return nil
}

// Verdict decides about a packet. With a mark other than 0 the packet gets that
// mark; where its sender is local it is then routed anew.
func (c *Conn) Verdict(id uint32, v Verdict, mark uint32) error {
	b := begin(c.out[:0], msgVerdict, 0, 0, c.queue)
	b = attr(b, attrVerdictHeader, be32(uint32(v), id))
	if mark != 0 {
		b = attr(b, attrMark, be32(mark))
	}
	c.out = end(b)
	if _, err := unix.Write(c.fd, c.out); err != nil {
		return fmt.Errorf("verdict: %w", err)
	}
	return nil
}

// verdictsAtOnce is how many verdicts go into one message to the kernel.
const verdictsAtOnce = 256

// Verdicts decides about many packets in the same way.
func (c *Conn) Verdicts(ids []uint32, v Verdict) error {
	for len(ids) > 0 {
		n := min(len(ids), verdictsAtOnce)
		b := c.out[:0]
		for _, id := range ids[:n] {
			at := len(b)
			b = attr(begin(b, msgVerdict, 0, 0, c.queue), attrVerdictHeader, be32(uint32(v), id))
			binary.NativeEndian.PutUint32(b[at:], uint32(len(b)-at))
		}
		c.out = b
		if _, err := unix.Write(c.fd, b); err != nil {
			return fmt.Errorf("verdicts: %w", err)
		}
		ids = ids[n:]
	}
	return nil
}

// Close gives the queue up. The kernel drops what waits.
func (c *Conn) Close() error {
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}
