package netproxy

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// detach makes a connection of its own of a leg that was taken for c and is no
// recorded connection's: another thread of the application opened it, and the
// crash came before there was a record. It goes live after the replay; c waits
// for another leg.
func (p *Proxy) detach(c *conn) {
	n := &conn{
		id: p.nextID, dir: dirOut, client: c.client, dest: c.dest, clientFD: -1, legFD: c.legFD,
		inBase: c.inBase + uint32(c.inSent), outBase: c.outBase + uint32(c.outPos), origin: c.origin,
	}
	port, err := p.ports.GetCommon()
	if err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: no source port for a connection to a server")
		c.unidentified = false // it differs
		return
	}
	n.legPort, n.unopened, n.redirected = port, true, c.redirected
	n.readable[legSide], n.hup[legSide], n.writable[legSide] = true, c.hup[legSide], true
	p.nextID++
	p.bereave(c)
	p.insert(n)
	p.rewatchLeg(n)
	p.strayStands(n)
}

// spareLeg takes the leg from a connection that its server is about to end since
// the application had: a pool may keep it this time, and close another.
func (p *Proxy) spareLeg(c *conn, pc *replay.Conn) {
	if c.dir == dirOut && pc.AppEnded && legOpen(c) && !c.hup[legSide] && p.rep.stateless[c.dest] && p.atRest(c) && nextOutput(c) == nil {
		p.detach(c)
	}
}

// strayStands takes a leg that is no recorded connection's, as far as is known.
func (p *Proxy) strayStands(c *conn) {
	c.stray, c.unopened = false, true
	if v := c.virtual; v != nil {
		if p.rep == nil { // the replay has ended meanwhile
			p.launchVirtual(c, nil)
			return
		}
		v.upstream.legs = append(v.upstream.legs, c)
		return
	}
	c.detached = true
	p.egress.handshakes++
	if p.rep == nil {
		p.launchOne(c)
		return
	}
	p.rep.servers[c.dest]++
	p.rep.conns[c.id] = c
	p.rep.detached = append(p.rep.detached, c)
	p.activate(c)
}

// admitStrays lets connections be opened that the application had not opened, if
// it may only have taken another one of a pool then: what it writes will tell.
func (p *Proxy) admitStrays() {
	e := p.egress
	e.syns = slices.DeleteFunc(e.syns, func(s *syn) bool {
		to := func(c *conn) bool { return c.dest == s.server && !c.gone }
		if slices.ContainsFunc(e.expect, to) ||
			!slices.ContainsFunc(p.rep.outgoing, func(c *conn) bool { return to(c) && !c.diverged && c.outPos < c.outRead }) {
			return false
		}
		port, err := p.ports.GetCommon()
		if err != nil {
			return false // checkStray ends the wait
		}
		c := &conn{id: p.nextID, dir: dirOut, client: s.client, dest: s.server, legPort: port, clientFD: -1, legFD: -1}
		c.unopened, c.stray, c.syn = true, true, s
		p.nextID++
		p.insert(c)
		e.opening[s.pair] = c
		p.grant(c)
		return true
	})
}

// rewatchLeg tells epoll whose the leg is now.
func (p *Proxy) rewatchLeg(c *conn) { p.rewatch(c, legSide, c.legFD) }

func (p *Proxy) rewatch(c *conn, s side, fd int) {
	ev := unix.EpollEvent{Events: connEvents, Fd: c.slot<<1 | int32(s), Pad: c.gen}
	if err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_MOD, fd, &ev); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: watch a socket")
	}
}

// launch begins the connections that have no record, at the end of a replay. If
// anything came out differently they may be repetitions of what a server has
// already, and are reset.
func (p *Proxy) launch(rep *replayState) (lost int) {
	for _, c := range rep.detached {
		switch {
		case c.gone:
		case len(rep.diverged) == 0 && p.takeSpare(c):
		case len(rep.diverged) > 0:
			p.opts.Log.WithFields(connFields(c)).Error("netproxy: connection that has no record; reset")
			p.destroy(c, true)
			lost++
		default:
			p.launchOne(c)
		}
	}
	return lost
}

// takeSpare gives the leg to a recorded connection to the same server on which
// nothing was said and that the application has not opened again, if there is one:
// it meant this one.
func (p *Proxy) takeSpare(c *conn) bool {
	i := slices.IndexFunc(p.rep.outgoing, func(o *conn) bool {
		return o != c && o.dest == c.dest && o.unopened && o.syn == nil && o.legFD < 0 && !o.gone && !o.ghost() &&
			!o.dialling && !o.eof[clientSide] && !o.failed[clientSide] && p.unsaid(o)
	})
	if i < 0 {
		return false
	}
	p.swapLegs(c, p.rep.outgoing[i])
	return true
}

// launchOne dials the server of a leg that stands.
func (p *Proxy) launchOne(c *conn) {
	if p.failed == nil {
		c.acceptedAt = p.opts.Journal.AppendOpen(journal.ConnOpen{
			Conn: c.id, Direction: dirOut, Client: c.client, Server: c.dest, LegPort: c.legPort,
		})
		p.opts.Journal.AppendConsumed(c.id, 0)
	}
	p.stats.opened.Add(1)
	p.box.dials = append(p.box.dials, c)
}

// joined is called when the server of a detached connection has answered.
func (p *Proxy) joined(c *conn) {
	if c.raise != nil && c.errno == 0 {
		p.beginRaise(c)
		return
	}
	c.detached = false
	p.egress.handshakes--
	if c.errno != 0 {
		p.abandon(c) // too late for a refusal
		return
	}
	c.unopened = false
	if len(c.first) > 0 {
		p.output(c, c.first)
		c.first = nil
	}
	p.activate(c)
}
