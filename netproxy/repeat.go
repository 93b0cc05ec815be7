package netproxy

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/session"
)

// repeats are recorded requests to a server that speaks HTTP/1 which the
// application has not made again when a replay ends. It makes them later if a timer
// of its own does, for instance: then they are answered from the record, and do not
// reach the server a second time.
type repeats struct {
	open   []*exchange
	until  time.Time
	speaks *session.Tracker // as that of upstream
}

const (
	// repeatLimit is how long after a replay recorded requests are waited for. A
	// timer that had run before the crash runs again within the time between
	// checkpoint and crash.
	repeatLimit = 30 * time.Second
	// wholeLimit is how long the rest of a request is waited for that may be one
	// of them.
	wholeLimit = 2 * time.Second
	// repeatedAnswer bounds a recorded answer that is kept, in bytes.
	repeatedAnswer = journal.MaxPayload
)

// keepRepeats is called at the end of a replay. Connections on which answers are
// still under way are kept with them.
func (p *Proxy) keepRepeats(dest netip.AddrPort, u *upstream) {
	r := p.egress.repeats[dest]
	if r == nil {
		r = &repeats{}
		p.egress.repeats[dest] = r
	}
	r.speaks = u.speaks
	for _, x := range u.open {
		if !x.standsAlone() || !x.matters() {
			continue // differences are tolerated
		}
		pc := p.rep.plan.Conns[x.conn.id]
		if x.answer = pc.Slice(x.InFrom, x.InTo); len(x.answer) > repeatedAnswer {
			p.opts.Log.WithFields(connFields(x.conn)).Warn("netproxy: the answer to a request that the application has not made again is too large to be kept")
			continue
		}
		x.serverEnded = pc.Ended && !pc.AppEnded
		x.conn.kept = x.conn.kept || x.last && x.conn.legFD < 0 && x.conn.goesOn() && !x.answered(x.answer)
		r.open = append(r.open, x)
	}
	r.until = time.Now().Add(repeatLimit)
	if len(r.open) == 0 {
		delete(p.egress.repeats, dest)
	}
}

// recallRepeats drops what a new replay has in its plan.
func (p *Proxy) recallRepeats(plan *replay.Plan) {
	for dest, r := range p.egress.repeats {
		r.open = slices.DeleteFunc(r.open, func(x *exchange) bool {
			o := x.conn
			if pc := plan.Conns[o.id]; pc != nil {
				o.kept = false
				return slices.ContainsFunc(pc.Outputs, func(e replay.Output) bool { return e.Offset == x.Outputs[0].Offset })
			}
			if o.kept {
				p.rep.conns[o.id] = o
			}
			return false
		})
		if len(r.open) == 0 {
			delete(p.egress.repeats, dest)
		}
	}
}

// unlessRecorded takes what the application writes to a server, and returns what
// is to be sent there. It keeps a request back until it is whole.
func (p *Proxy) unlessRecorded(c *conn, data []byte) []byte {
	r := p.egress.repeats[c.dest]
	if len(c.asked) == 0 {
		switch {
		case r == nil || len(r.open) == 0 || c.ghost():
			return data
		case !p.awaitsRequest(c) || !r.knows(c):
			return p.unlessOutOfTurn(c, r, data)
		}
		c.askedAt, c.unseen = time.Now(), false
	}
	c.asked = append(c.asked, data...)
	n, i := 0, -1
	if r != nil {
		n = r.requestLen(c.asked)
	}
	if n == 0 && r != nil && !p.draining {
		return nil
	}
	if n > 0 && r != nil {
		i = r.find(c.asked, n, c.class())
	}
	asked := c.passAsked()
	switch {
	case i < 0 && n > 0:
		return append(asked[:n:n], p.unlessOutOfTurn(c, r, asked[n:])...)
	case i < 0:
		c.unseen = true
		return asked
	case c.ahead && (r.speaks == nil || !r.knows(c)):
		p.refuseOutOfTurn(c)
		return nil
	}
	x := r.open[i]
	r.open = slices.Delete(r.open, i, i+1)
	c.unseen = c.unseen || x.Length() < uint64(n) // the crash came in the midst of it
	p.repeat(c, x, asked[:x.Length()])
	return p.unlessOutOfTurn(c, r, asked[x.Length():])
}

// unlessOutOfTurn returns what the application writes while the server owes it an answer,
// or something that it may owe it. A request among that which has a record can't be
// answered yet, and must not be made twice.
func (p *Proxy) unlessOutOfTurn(c *conn, r *repeats, data []byte) []byte {
	switch {
	case c.gone:
		return nil
	case r.speaks != nil && (c.session == nil || c.session.Lost()):
		return data // it is like none that has a record
	}
	for rest := data; len(rest) > 0 && !c.unseen; {
		n := r.requestLen(rest)
		switch c.ahead = true; {
		case n == 0 && !p.draining:
			c.asked, c.askedAt = slices.Clone(rest), time.Now()
			return data[:len(data)-len(rest)]
		case n <= 0:
			c.unseen = true
			return data
		}
		if slices.ContainsFunc(r.open, func(x *exchange) bool { return x.madeBy(rest, n) }) {
			p.refuseOutOfTurn(c)
			return nil
		}
		rest = rest[n:]
	}
	return data
}

// refuseOutOfTurn ends a connection: the application makes its requests again on another,
// where nobody owes it an answer.
func (p *Proxy) refuseOutOfTurn(c *conn) {
	p.opts.Log.WithFields(connFields(c)).Error("netproxy: a request that the record answers stands behind one that it does not; reset")
	p.destroy(c, true)
}

// awaitsRequest reports that the server has answered whatever it was asked on the
// connection, and that the application has been given the answers.
func (p *Proxy) awaitsRequest(c *conn) bool {
	return c.spoke == c.outPos && c.in.empty() && c.out.empty() && c.boxed == 0 && !c.shut[legSide] && !c.shut[clientSide]
}

// knows reports whether it is known in which state the session of a connection is.
func (r *repeats) knows(c *conn) bool {
	if r.speaks == nil {
		return true
	}
	if c.session == nil {
		return c.outPos == 0
	}
	return c.session.Resting()
}

func (c *conn) passAsked() []byte {
	data := c.asked
	c.asked = nil
	return data
}

// repeat answers a request from its record. Both are recorded as if the server had
// been asked on this connection.
func (p *Proxy) repeat(c *conn, x *exchange, request []byte) {
	method, _, _ := bytes.Cut(request[:min(len(request), 32)], []byte(" "))
	x.method = string(method)
	whole := !x.last || x.answered(x.answer)
	p.sniff(c, request) // the server is not asked: its session is as it was
	if p.failed == nil {
		p.opts.Journal.AppendOutput(c.id, c.outPos, uint32(len(request)), fingerprint(request))
	}
	c.outPos += uint64(len(request))
	c.outRead, c.outSent = c.outPos, c.outPos
	p.stats.swallowed.Add(uint64(len(request)))
	if len(x.answer) > 0 {
		p.record(c, x.answer)
		c.in.add(&p.pool, x.answer)
	}
	if p.failed == nil {
		p.opts.Journal.AppendRepeated(x.conn.id, x.Outputs[0].Offset)
	}
	switch {
	case whole:
		if x.last {
			p.dropKept(x.conn) // whose answer was whole after all
		}
	case x.conn.kept && c.class() == x.after:
		p.adopt(c, x.conn)
	case x.serverEnded:
		c.eof[clientSide] = true
		p.closes = append(p.closes, c)
	default:
		p.opts.Log.WithFields(connFields(c)).Error("netproxy: the answer to the application's request is lost; reset")
		p.dropKept(x.conn)
		p.destroy(c, true)
		return
	}
	p.activate(c)
}

// adopt gives c the socket towards the server that o has, and ends its own as a
// pool does with a connection too many.
func (p *Proxy) adopt(c, o *conn) {
	_ = unix.Close(c.clientFD)
	c.clientFD, o.clientFD = o.clientFD, -1
	c.legPort, o.legPort = o.legPort, c.legPort
	c.borrowed, o.borrowed = o.borrowed, c.borrowed
	c.readable[clientSide], c.writable[clientSide] = true, true
	c.hup[clientSide], c.timeouts = o.hup[clientSide], o.timeouts
	p.rewatch(c, clientSide, c.clientFD)
	p.continueSession(c, o)
	o.kept = false
	p.abandon(o)
}

// dropKept ends a connection that was kept for an answer that nobody waits for.
func (p *Proxy) dropKept(o *conn) {
	if o.kept && !o.gone {
		o.kept = false
		p.abandon(o)
	}
}

// expireRepeats forgets the recorded requests that the application does not make
// again, and lets pass what may have been the beginning of one.
func (p *Proxy) expireRepeats(now time.Time) {
	if p.phase != live {
		return
	}
	for dest, r := range p.egress.repeats {
		if now.After(r.until) || len(r.open) == 0 {
			for _, x := range r.open {
				p.dropKept(x.conn)
			}
			delete(p.egress.repeats, dest)
		}
	}
	for _, c := range p.slots {
		if c != nil && len(c.asked) > 0 && (now.Sub(c.askedAt) > wholeLimit || p.egress.repeats[c.dest] == nil) {
			c.unseen = true
			p.send(c, c.passAsked())
		}
	}
}

// asking reports whether a part of a request is kept back.
func (p *Proxy) asking() bool {
	return p.egress != nil && len(p.egress.repeats) > 0 &&
		slices.ContainsFunc(p.slots, func(c *conn) bool { return c != nil && len(c.asked) > 0 })
}

// waitsForRepeat reports whether the application asks on a leg for what an earlier
// recovery's record has, and that is answered after this one.
func (p *Proxy) waitsForRepeat(v *conn) bool {
	r, data := p.egress.repeats[v.dest], v.virtual.asked
	if r == nil {
		return false
	}
	n := r.requestLen(data)
	return n > 0 && r.find(data, n, v.virtual.class) >= 0
}

func (r *repeats) requestLen(data []byte) int { return lengthIn(r.speaks, data) }

// find looks for the record of what data, which is n bytes of requests, asks a server
// with whom the session is of a class; -1: there is none.
func (r *repeats) find(data []byte, n int, class session.Class) int {
	if i := slices.IndexFunc(r.open, func(x *exchange) bool { return x.before == class && x.madeBy(data, n) }); i >= 0 {
		return i
	}
	bare := bareIn(r.speaks, data)
	return slices.IndexFunc(r.open, func(x *exchange) bool { return x.before.Like(class, bare) && x.madeBy(data, n) })
}
