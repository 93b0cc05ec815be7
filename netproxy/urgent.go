package netproxy

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/replay"
)

// urgent is what a connection that has carried urgent data (RFC 6093) knows of it:
// single bytes of a stream that their sender has marked. Our sockets have
// SO_OOBINLINE, so that such a byte is counted and recorded like every other; it is
// marked again where it leaves.
type urgent struct {
	announced [2]bool  // by side: the socket has such a byte, or had
	in, out   []uint64 // offsets of the marked bytes that have not left yet
	// last is the input offset behind the marked byte that was delivered last, at
	// when that was.
	last uint64
	at   time.Time
}

// urgentRest is for how long after a marked byte no checkpoint is made: an image
// does not say of a byte that it was marked.
const urgentRest = 100 * time.Millisecond

// announce notes that the socket has urgent data.
func (c *conn) announce(s side) {
	if c.urgent == nil {
		c.urgent = &urgent{}
	}
	c.urgent.announced[s] = true
}

// announced reports whether urgent data is looked for: a read then ends before it,
// and says nothing about what is behind.
func (c *conn) announced(s side) bool { return c.urgent != nil && c.urgent.announced[s] }

// urging reports that urgent data is on its way to the application, which may
// wait for it before it reads anything.
func (c *conn) urging() bool {
	return c.urgent != nil && (c.urgent.announced[clientSide] || len(c.urgent.in) > 0)
}

// receive reads from a side. A marked byte comes by itself.
func (c *conn) receive(s side, fd int, buf []byte) (n int, marked bool, e syscall.Errno) {
	if !c.announced(s) {
		n, e = recvNB(fd, buf)
		return n, false, e
	}
	if marked = atMark(fd); marked {
		buf = buf[:1]
	}
	n, e = recvNB(fd, buf)
	if marked || e != 0 {
		c.urgent.announced[s] = false // the next makes an event of its own
	}
	return n, marked && n == 1 && e == 0, e
}

// more notes after a read of all that was asked for whether urgent data is next:
// no event may have told yet.
func (c *conn) more(s side, fd int) {
	if atMark(fd) {
		c.announce(s)
	}
}

func atMark(fd int) bool {
	at, err := unix.IoctlGetInt(fd, unix.SIOCATMARK)
	return err == nil && at != 0
}

// deliverBytes is sendNB to the leg.
func (c *conn) deliverBytes(data []byte) (int, syscall.Errno) {
	if c.urgent == nil || len(c.urgent.in) == 0 {
		return sendNB(c.legFD, data)
	}
	n, last, e := sendMarked(c.legFD, &c.urgent.in, c.inSent, data)
	if last > 0 {
		c.urgent.last, c.urgent.at = last, time.Now()
	}
	return n, e
}

// sendBytes is sendNB to the client.
func (c *conn) sendBytes(data []byte) (int, syscall.Errno) {
	if c.urgent == nil || len(c.urgent.out) == 0 {
		return sendNB(c.clientFD, data)
	}
	n, _, e := sendMarked(c.clientFD, &c.urgent.out, c.outSent, data)
	return n, e
}

// sendMarked sends the bytes of a stream from offset at on, each of the marked ones
// as urgent data, and takes those off the list. It returns the offset behind the
// last of them, or 0.
func sendMarked(fd int, marks *[]uint64, at uint64, data []byte) (sent int, last uint64, e syscall.Errno) {
	for sent < len(data) {
		piece, flags, here := data[sent:], uintptr(0), at+uint64(sent)
		for len(*marks) > 0 && (*marks)[0] < here {
			*marks = (*marks)[1:]
		}
		if len(*marks) > 0 {
			switch ahead := (*marks)[0] - here; {
			case ahead == 0:
				piece, flags = piece[:1], unix.MSG_OOB
			case ahead < uint64(len(piece)):
				piece = piece[:ahead]
			}
		}
		n, errno := sendFlagged(fd, piece, flags)
		if errno != 0 && (errno != syscall.EAGAIN || sent == 0) {
			return sent, last, errno
		}
		if errno != 0 {
			break
		}
		sent += n
		if flags != 0 {
			last = here + 1
		}
		if n < len(piece) {
			break
		}
	}
	return sent, last, 0
}

// settled reports whether the application has taken what it was given. A marked
// byte at the end may be taken without being read: it stays where it is until more
// comes.
func (c *conn) settled() bool {
	return c.inConsumed >= c.inSent || c.urgent != nil && c.urgent.last == c.inSent && c.inConsumed+1 == c.inSent
}

// checkUrgent returns an error while an image would not hold all input: CRIU
// reads a socket up to a marked byte.
func (p *Proxy) checkUrgent() error {
	for _, c := range p.slots {
		if c == nil || c.urgent == nil || c.urgent.last <= c.inConsumed {
			continue
		}
		if c.urgent.last < c.inSent || time.Since(c.urgent.at) < urgentRest {
			return fmt.Errorf("%w: cut while the application has urgent data of connection %d (%s) to read", ErrPhase, c.id, c.client)
		}
	}
	return nil
}

// urgentAgain prepares for the marked bytes that a replay delivers.
func (c *conn) urgentAgain(pc *replay.Conn) {
	if c.urgent != nil {
		c.urgent.in, c.urgent.last = nil, 0
	}
	for _, at := range pc.Urgent {
		if at >= c.inSent {
			if c.urgent == nil {
				c.urgent = &urgent{}
			}
			c.urgent.in = append(c.urgent.in, at)
		}
	}
}
