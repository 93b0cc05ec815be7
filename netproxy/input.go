package netproxy

import (
	"bytes"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/session"
)

// inputBudget bounds what one connection may bring in during one round.
const inputBudget = 256 << 10

// pumpInput moves bytes from the client to the journal and to the leg.
func (p *Proxy) pumpInput(c *conn) {
	if c.raise != nil && (p.phase == live || p.phase == holding) {
		p.pumpRaise(c)
	}
	if c.gone || c.connecting || c.unopened || p.phase != live {
		return
	}
	if !c.in.empty() && !p.flushInput(c) {
		return
	}
	for budget := inputBudget; budget > 0; {
		if p.congested() {
			p.park(c)
			return
		}
		if !c.readable[clientSide] || c.eof[clientSide] || c.failed[clientSide] || !c.in.empty() || c.waiting {
			return
		}
		room := min(len(p.scratch), p.pool.share())
		n, marked, e := c.receive(clientSide, c.clientFD, p.scratch[:room])
		switch {
		case e == syscall.EAGAIN:
			c.readable[clientSide] = false
			return
		case e != 0:
			c.failed[clientSide] = true
			p.closes = append(p.closes, c)
			return
		case n == 0:
			c.eof[clientSide] = true
			p.closes = append(p.closes, c)
			return
		}
		budget -= n
		// A short read means that the socket was empty a moment ago: the next
		// byte makes a new edge. A FIN behind the data made its edge already.
		switch {
		case marked:
			c.urgent.in = append(c.urgent.in, c.inRead)
		case n == room:
			c.more(clientSide, c.clientFD)
		case !c.hup[clientSide] && !c.announced(clientSide):
			c.readable[clientSide] = false
		}
		p.input(c, p.scratch[:n])
		if marked && p.failed == nil {
			p.opts.Journal.AppendUrgent(c.id, c.inRead-1)
		}
	}
	p.activate(c)
}

// record journals input.
func (p *Proxy) record(c *conn, data []byte) {
	if p.failed == nil {
		pos := p.opts.Journal.AppendInput(c.id, c.inRead, c.outSent, data)
		c.noteSpan(pos, uint64(len(data)))
		p.stats.inRecords.Add(1)
		p.stats.inBytes.Add(uint64(len(data)))
	}
	if c.dir == dirOut {
		c.http = c.http || c.inRead == 0 && bytes.HasPrefix(data, []byte(httpAnswer))
		c.spoke = c.outSent
	}
	c.inRead += uint64(len(data))
}

// input journals what the client sent and delivers it.
func (p *Proxy) input(c *conn, data []byte) {
	p.record(c, data)
	p.learn(c, func(t *session.Tracker) { t.Heard(data) })
	if c.failed[legSide] || c.legFD < 0 {
		return // the application ended the connection; nobody will read this
	}
	if p.mustWait(c) {
		c.in.add(&p.pool, data)
		return
	}
	n := p.deliver(c, data)
	c.in.add(&p.pool, data[n:])
}

// flushInput delivers what is pending; true when nothing is left.
func (p *Proxy) flushInput(c *conn) bool {
	if !c.writable[legSide] || p.mustWait(c) {
		return false
	}
	n := p.deliver(c, c.in.bytes())
	c.in.advance(n)
	if c.in.empty() && c.closing[clientSide] {
		p.closes = append(p.closes, c)
	}
	return c.in.empty()
}

// deliver writes to the leg and returns how much it took.
func (p *Proxy) deliver(c *conn, data []byte) int {
	n, e := c.deliverBytes(data)
	switch {
	case e == syscall.EAGAIN:
		c.writable[legSide] = false
		return 0
	case e != 0:
		c.failed[legSide] = true
		p.closes = append(p.closes, c)
		return len(data)
	}
	if n < len(data) {
		c.writable[legSide] = false
	}
	c.inSent += uint64(n)
	if !c.inflight && !c.settled() {
		c.inflight = true
		p.inflight++
	}
	if p.src.Serial() {
		p.takeTurn(c)
	}
	return n
}

// onConsumed is told by the order source that the application took input.
func (p *Proxy) onConsumed(ev order.Event) {
	if ev.Datagram {
		p.datagramTaken(ev.AppPort)
		return
	}
	c := p.byApp[appKey(ev.AppPort, ev.LegPort, ev.Peer)]
	if c != nil {
		p.takenUpto(c, ev.CopiedSeq)
	}
}

func (p *Proxy) takenUpto(c *conn, copiedSeq uint32) {
	delta := int32(copiedSeq - (c.inBase + uint32(c.inConsumed)))
	if delta <= 0 || c.inConsumed+uint64(delta) > c.inSent {
		return // a peek, a FIN, or an event of an earlier owner of the port
	}
	p.consumedTo(c, c.inConsumed+uint64(delta))
}

func (p *Proxy) consumedTo(c *conn, upto uint64) {
	c.inConsumed = upto
	if upto > c.consumedMark && p.failed == nil {
		p.opts.Journal.AppendConsumed(c.id, upto)
	}
	p.settle(c)
}

// settle takes a connection out of the count of those with input in flight.
func (p *Proxy) settle(c *conn) {
	if c.inflight && c.settled() {
		c.inflight = false
		p.inflight--
	}
}

// shutLeg sends the client's FIN on.
func (p *Proxy) shutLeg(c *conn) {
	if c.shut[legSide] {
		return
	}
	c.shut[legSide] = true
	if c.legFD < 0 {
		return // the application has ended it before
	}
	_ = unix.Shutdown(c.legFD, unix.SHUT_WR)
}
