package netproxy

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/replay"
)

// exchange is a recorded request with its whole answer. An application whose
// pool is small may make its requests in another order than in its first life,
// so that the one that the record has next waits, inside of it, for a later one
// to be answered. Requests that stand alone are therefore answered in any order;
// their own connection passes over them when it comes there.
type exchange struct {
	outFrom, outTo uint64
	inFrom, inTo   uint64
}

// answerOutOfTurn answers a request on the leg of c from the record of whatever
// connection it was made on. It reports whether there is one.
func (p *Proxy) answerOutOfTurn(c *conn, data []byte) bool {
	if !standalone(data) || !p.atRest(c) {
		return false
	}
	o, x := p.findExchange(c, data)
	if o == nil {
		return false
	}
	n, errno := recvNB(c.legFD, p.box.arena[p.box.used:][:len(data)])
	if errno != 0 || n != len(data) {
		return false // the application has reset it; the next look tells
	}
	answer := p.rep.plan.Conns[o.id].Slice(x.inFrom, x.inTo)
	if !writeAll(c.legFD, answer) {
		p.differ(c)
		return true
	}
	// The leg has moved on, the connection's own streams have not.
	c.outBase += uint32(n)
	c.inBase += uint32(len(answer))
	o.done = append(o.done, x)
	p.rep.fed += int64(len(answer))
	p.stats.swallowed.Add(uint64(n))
	p.rep.outOfTurn = append(p.rep.outOfTurn, o)
	return true
}

// findExchange looks for the earliest request that equals data and was answered
// in full, on any connection to the server of c.
func (p *Proxy) findExchange(c *conn, data []byte) (found *conn, x exchange) {
	hash, first := fingerprint(data), 0
	for _, o := range p.rep.outgoing {
		if o.dest != c.dest || o.gone || o.diverged {
			continue
		}
		pc := p.rep.plan.Conns[o.id]
		for i := range o.expect {
			e := &o.expect[i]
			if int(e.Length) != len(data) || e.Offset < o.outPos || found != nil && e.Seq > first || !equals(e, data, hash) {
				continue
			}
			from, to, ok := pc.Answer(e.Offset, e.End())
			if !ok || slices.ContainsFunc(o.done, func(d exchange) bool { return d.outFrom == e.Offset }) {
				continue
			}
			found, first = o, e.Seq
			x = exchange{outFrom: e.Offset, outTo: e.End(), inFrom: from, inTo: to}
		}
	}
	return found, x
}

func equals(e *replay.Output, data []byte, hash uint64) bool {
	if e.Bytes != nil {
		return string(e.Bytes) == string(data)
	}
	return e.Hash == hash
}

// passOver moves connections past what was answered out of turn.
func (p *Proxy) passOver() {
	p.rep.outOfTurn = slices.DeleteFunc(p.rep.outOfTurn, func(c *conn) bool {
		for {
			i := slices.IndexFunc(c.done, func(x exchange) bool {
				return x.outFrom == c.outPos && x.inFrom == c.inSent && c.inSent == c.inConsumed
			})
			if i < 0 || c.gone {
				return c.gone || len(c.done) == 0
			}
			x := c.done[i]
			c.done = slices.Delete(c.done, i, i+1)
			c.outPos, c.inSent, c.inConsumed = x.outTo, x.inTo, x.inTo
			c.outBase -= uint32(x.outTo - x.outFrom)
			c.inBase -= uint32(x.inTo - x.inFrom)
			p.activate(c)
		}
	})
}

// writeAll writes to a leg whose reader is known to be reading.
func writeAll(fd int, data []byte) bool {
	for deadline := time.Now().Add(dialTimeout); len(data) > 0; {
		n, errno := sendNB(fd, data)
		switch {
		case errno == 0:
			data = data[n:]
		case errno != unix.EAGAIN || time.Now().After(deadline):
			return false
		default:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 10)
		}
	}
	return true
}
