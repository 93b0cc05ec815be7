package netproxy

import (
	"fmt"
	"slices"

	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/session"
)

// follow reads what the application writes to a server, to know what state its
// session is in.
func (p *Proxy) follow(c *conn, data []byte) {
	p.sniff(c, data)
	p.learn(c, func(t *session.Tracker) { t.Wrote(c.outPos, data) })
}

// sniff looks whether the protocol is known, by the first bytes that the application
// writes.
func (p *Proxy) sniff(c *conn, data []byte) {
	if c.outPos == 0 && c.session == nil {
		c.session = session.Sniff(c.id, data)
		p.egress.sessions += c.sessionSize()
	}
}

// sessionsLimit bounds what is kept of the sessions that there are, in bytes. With more,
// those that need more are like no other.
const sessionsLimit = 64 << 20

// learn lets the tracker of a connection's session see more, if there is one.
func (p *Proxy) learn(c *conn, see func(*session.Tracker)) {
	if c.session == nil {
		return
	}
	size := c.session.Size()
	see(c.session)
	grown := c.session.Size() - size
	if grown > 0 && p.egress.sessions+grown > sessionsLimit {
		c.session.Lose()
		grown = c.session.Size() - size
	}
	p.egress.sessions += grown
}

// continueSession is called when c goes on with the socket towards the server that o had.
func (p *Proxy) continueSession(c, o *conn) {
	if c.session == nil {
		return
	}
	p.egress.sessions -= c.sessionSize() + o.sessionSize()
	c.session.Continue(o.session)
	p.egress.sessions += c.sessionSize() + o.sessionSize()
}

func (c *conn) sessionSize() int {
	if c.session == nil {
		return 0
	}
	return c.session.Size()
}

// speakAlike reports whether a connection may be one of the server's, by its protocol.
func (u *upstream) speakAlike(c *conn) bool {
	switch {
	case c.session == nil:
		return true
	case u.speaks == nil:
		u.speaks = c.session
		return true
	}
	return u.speaks.Same(c.session)
}

// class is that of the connection's session for what is written next.
func (c *conn) class() session.Class {
	if c.session == nil {
		return session.Class{}
	}
	class, _ := c.session.At(c.outRead)
	return class
}

// classify finds the classes of a connection's exchanges, and reports whether all are
// known.
func (c *conn) classify(pc *replay.Conn) bool {
	for _, x := range c.exchanges {
		from, end := pc.OutRead, pc.OutRead
		if pc.Image != nil {
			from, end = max(from, pc.Image.Acked), max(end, pc.Image.Acked)
		}
		if n := len(x.Outputs); n > 0 {
			from, end = x.Outputs[0].Offset, x.Outputs[n-1].End()
		}
		var ok, ok2 bool
		x.before, ok = c.session.At(from)
		x.after, ok2 = c.session.At(end)
		if !ok || !ok2 || c.session.Lost() {
			return false
		}
		x.within, x.inside = c.session.Inside(from) != 0, c.session.Inside(end) != 0
		x.begins = !x.within && c.session.Begun(end) || x.last && c.session.Begins()
		x.prepares = x.InTo > x.InFrom && c.session.Inside(from) == c.session.Inside(end) &&
			(x.before != x.after && !c.session.Worked(end) || x.greets())
	}
	if c.session != nil && c.session.Uncommitted() {
		c.markUndone()
	}
	return true
}

// greets reports whether the request only tells the server of its client.
func (x *exchange) greets() bool {
	return x.conn.session != nil && len(x.Outputs) > 0 && x.isOneOf(x.conn.session.Greetings())
}

// markUndone finds what was done in a transaction that was never committed. It need not come
// again: what is made in its place is made on another session, and this one ends.
func (c *conn) markUndone() {
	for _, x := range slices.Backward(c.exchanges) {
		x.undone = x.within || x.inside
		if !x.within {
			return
		}
	}
}

// lengthIn is the length of the request that data begins with: 0 if it takes more
// bytes to know, -1 if it is no such thing. In a session, which has a tracker, it is that
// of all requests.
func lengthIn(speaks *session.Tracker, data []byte) int {
	if speaks == nil {
		return requestLen(data)
	}
	n := speaks.Whole(data)
	if n == 0 && len(data) >= requestLimit {
		return -1
	}
	return n
}

// bareIn reports whether the requests have nothing to do with statements that are
// prepared in their session.
func bareIn(speaks *session.Tracker, data []byte) bool { return speaks != nil && speaks.Bare(data) }

// farewell reports whether the exchange is the end of a session: what is said then is
// not answered, and need not come again.
func (x *exchange) farewell() bool {
	if x.conn.session == nil || !x.last || x.InFrom != x.InTo {
		return false
	}
	text := x.conn.session.Farewell()
	return text != nil && x.madeBy(text, len(text))
}

// prepared is the record of how another session was made what the application asks that
// on the leg to become, or how it began a transaction: it may open more of them this time,
// or ask in another order. The answer is given once more.
func (v *conn) prepared(n int, bare bool) *exchange {
	w := v.virtual
	for _, c := range w.upstream.conns {
		for _, x := range c.exchanges {
			if x.harmless() && x.complete() && x.before.Like(w.class, bare) && (x.madeBy(w.asked, n) || x.opens(w, n)) {
				return &exchange{
					Exchange: x.Exchange, conn: c, before: x.before, after: x.after, prepares: x.prepares, begins: x.begins,
					fed: x.InFrom, allowed: x.InTo,
				}
			}
		}
	}
	return nil
}

// opens reports whether the request opens a session like that which the n bytes do that the
// application asks on a leg.
func (x *exchange) opens(w *virtual, n int) bool {
	var none session.Class
	if !x.prepares || x.before != none || w.class != none || w.upstream.speaks == nil || x.Length() != uint64(n) || n != len(w.asked) {
		return false
	}
	class, ok := w.upstream.speaks.Opening(w.asked)
	return ok && class == x.after
}

// complete reports whether the record has the whole answer to what is asked of a session.
func (x *exchange) complete() bool {
	return x.InTo > x.InFrom && (!x.last || x.conn.session != nil && x.conn.session.Resting())
}

// standsAlone reports that the request may be answered from the record on any
// connection whose session is as that was.
func (x *exchange) standsAlone() bool { return x.before == x.after }

// checkSessions ends a replay after which the application might make a part of a
// transaction again: its record can't be told from that of another.
func (p *Proxy) checkSessions() error {
	for dest, u := range p.rep.upstreams {
		for _, x := range u.open {
			if u.speaks != nil && !x.standsAlone() && x.matters() && !p.rep.tolerate {
				return fmt.Errorf("%w: a request to %s that changes its session was not made again%s", ErrDiverged, dest, p.upstreamState())
			}
		}
	}
	return nil
}

// pick chooses, from connections that are free, one whose session is as that which the
// application takes the leg for; -1: there is none.
func (v *conn) pick(free []*conn) (best int) {
	best = -1
	for i, c := range free {
		if v.virtual.upstream.speaks != nil && (c.session == nil || c.session.Lost() || c.class() != v.virtual.class) {
			continue
		}
		if best < 0 || c == v.virtual.home {
			best = i
		}
	}
	return best
}
