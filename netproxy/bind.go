package netproxy

import (
	"slices"

	"github.com/crsc-io/crsc/netproxy/session"
)

// bindUpstreams gives the virtual legs, at the end of a replay, the connections to
// servers that there are. That on which the last exchange of a recorded connection
// was made goes on with it. Others get what is left and rests, or a new one; what
// remains is closed, as the application has done this time.
func (p *Proxy) bindUpstreams() (lost int) {
	lost = p.rep.reset
	for dest, u := range p.rep.upstreams {
		p.keepRepeats(dest, u)
		var spare []*conn
		for _, v := range u.legs {
			x := v.virtual.cur
			switch {
			case v.gone || v.legFD < 0:
			case u.speaks != nil && v.shut[legSide]: // it has said farewell
				p.destroy(v, true)
			case x != nil && x.last && x.keptBy(v) && x.conn.goesOn() && !(x.conn.serverEnds() && p.answeredAll(x)):
				p.bind(v, x.conn, x.upto(), nil)
			default:
				spare = append(spare, v)
			}
		}
		lost += p.bindSpare(u, spare)
		for _, c := range u.conns {
			switch {
			case c.gone || c.legFD >= 0 || c.kept:
			case c.ghost():
				p.destroy(c, true)
			default:
				p.abandon(c)
			}
			c.upstream, c.exchanges = nil, nil
		}
	}
	return lost
}

// bindSpare deals with the legs whose last request was made on a connection that is
// another's, or on none.
func (p *Proxy) bindSpare(u *upstream, spare []*conn) (lost int) {
	free := u.free()
	var paths []*path
	var unlike []*conn
	reset := func(v *conn, why string) {
		p.opts.Log.WithFields(connFields(v)).Error("netproxy: " + why + "; reset")
		p.destroy(v, true)
		lost++
	}
	for _, v := range u.legs {
		if v.virtual != nil {
			paths = append(paths, &v.virtual.path)
		}
	}
	for _, v := range spare {
		x, k := v.virtual.cur, v.pick(free)
		switch {
		case ended(v) || v.shut[legSide]:
			p.destroy(v, true)
		case x != nil && !p.answeredAll(x):
			reset(v, "the answer to the application's request is lost")
		case k >= 0:
			p.bind(v, free[k], free[k].inRead, nil)
			free = slices.Delete(free, k, k+1)
		case u.speaks != nil && v.virtual.class != (session.Class{}):
			unlike = append(unlike, v)
		default:
			p.launchVirtual(v, nil)
		}
	}
	for _, v := range unlike {
		if !p.raised(v, paths, &free) {
			reset(v, "no session is as that which the application takes this for")
		}
	}
	return lost
}

// answeredAll reports whether the application has been given the whole answer to a request.
func (p *Proxy) answeredAll(x *exchange) bool {
	return x.fed == x.InTo && (!x.last || x.answered(x.recorded(p.rep.plan)))
}

// goesOn reports whether there is a server that has not been told of an end.
func (c *conn) goesOn() bool {
	return !c.gone && !c.ghost() && !c.dialling && !c.closing[legSide] && !c.shut[clientSide] && !c.failed[clientSide]
}

// serverEnds reports whether the server has said that it ends the connection.
func (c *conn) serverEnds() bool {
	return c.closing[clientSide] || c.eof[clientSide] || c.hup[clientSide]
}

// free lists the connections that rest and whose legs have gone on to others.
func (u *upstream) free() (list []*conn) {
	for _, c := range u.conns {
		if !c.goesOn() || c.legFD >= 0 || c.serverEnds() || len(c.exchanges) == 0 {
			continue
		}
		x := c.exchanges[len(c.exchanges)-1]
		switch {
		case x.leg == nil && x.harmless() && c.session.Resting(), // the application has done without
			x.leg != nil && (!x.current() || !x.keptBy(x.leg) && c.session.Resting()):
			list = append(list, c)
		}
	}
	return list
}

// keptBy reports whether the leg on which the request was made can go on with the
// connection of its record. What touches no prepared statement is answered from the record
// of any session; who holds the leg may then have prepared other statements than that one
// has.
func (x *exchange) keptBy(v *conn) bool { return v.virtual.class == x.after }

// bind joins a virtual leg to a recorded connection, of whose input the application
// has been given that up to fed. With r its session is brought to another state before
// it goes on.
func (p *Proxy) bind(v, c *conn, fed uint64, r *raise) {
	c.client, c.legFD, c.origin, c.redirected = v.client, v.legFD, v.origin, v.redirected
	for _, flags := range [...]func(*conn) *[2]bool{
		func(c *conn) *[2]bool { return &c.readable },
		func(c *conn) *[2]bool { return &c.writable },
		func(c *conn) *[2]bool { return &c.hup },
		func(c *conn) *[2]bool { return &c.eof },
		func(c *conn) *[2]bool { return &c.failed },
		func(c *conn) *[2]bool { return &c.shut },
	} {
		flags(c)[legSide] = flags(v)[legSide]
	}
	c.unopened, c.kept, c.expect, c.ackedOut = false, false, nil, 0
	// The stream goes on where it stands, the leg where it does.
	rest := v.virtual.asked
	c.inSent, c.outPos, c.queued = fed, c.outRead, 0
	c.inConsumed = fed - min(fed, v.inSent-v.inConsumed)
	c.inBase = v.inBase + uint32(v.inSent) - uint32(c.inSent)
	c.outBase = v.outBase + uint32(v.outPos) - uint32(len(rest)) - uint32(c.outPos)
	if fed < c.inRead {
		c.in.add(&p.pool, p.rep.plan.Conns[c.id].Slice(fed, c.inRead))
	}
	if x := v.virtual.cur; x == nil || !x.last || x.answered(x.recorded(p.rep.plan)) {
		c.spoke = c.outPos // what was recorded is the whole answer
	} else {
		c.unseen = true // what is left may be the rest of that request
	}
	if c.inConsumed > c.consumedMark {
		p.opts.Journal.AppendConsumed(c.id, c.inConsumed)
	}
	if c.inflight = c.inSent > c.inConsumed; c.inflight {
		p.inflight++
	}
	p.turns.replace(v, c)
	v.legFD, v.redirected = -1, false
	p.destroy(v, false)
	p.enter(c)
	p.rewatchLeg(c)
	switch {
	case r != nil:
		r.rest = slices.Clone(rest)
		c.raise, c.unopened, c.detached = r, true, true
		p.egress.handshakes++
		p.beginRaise(c)
	case len(rest) > 0:
		p.output(c, rest)
	}
}

// launchVirtual dials the server of a leg that has none. With r the session is brought to
// a state before it goes on.
func (p *Proxy) launchVirtual(v *conn, r *raise) {
	port, err := p.ports.GetCommon()
	if err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: no source port for a connection to a server")
		p.destroy(v, true)
		return
	}
	rest := v.virtual.asked
	v.legPort, v.borrowed, v.consumedMark, v.detached = port, false, 0, true
	v.inBase += uint32(v.inSent)
	v.outBase += uint32(v.outPos) - uint32(len(rest))
	v.inSent, v.inConsumed, v.outPos, v.first = 0, 0, 0, slices.Clone(rest)
	p.settle(v)
	p.egress.handshakes++
	if v.virtual, v.raise = nil, r; r != nil {
		v.first, r.rest = nil, v.first
	}
	if p.rep != nil {
		p.rep.conns[v.id] = v
	}
	p.launchOne(v)
}

// dropVirtual ends the virtual legs of a replay that has failed.
func (p *Proxy) dropVirtual() {
	for _, c := range p.slots {
		if c != nil && c.virtual != nil {
			p.destroy(c, true)
		}
	}
}
