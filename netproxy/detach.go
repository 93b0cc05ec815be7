package netproxy

import (
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
)

// detach makes a connection of its own of a leg that was taken for c and is no
// recorded connection's: another thread of the application opened it, and the
// crash came before there was a record. It goes live after the replay; c waits
// for another leg.
func (p *Proxy) detach(c *conn) {
	n := &conn{
		id: p.nextID, dir: dirOut, client: c.client, dest: c.dest, clientFD: -1, legFD: c.legFD,
		inBase: c.inBase, outBase: c.outBase, origin: c.origin,
	}
	port, err := p.ports.GetCommon()
	if err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: no source port for a connection to a server")
		c.unidentified = false // it differs
		return
	}
	n.legPort, n.unopened, n.detached, n.redirected = port, true, true, c.redirected
	n.readable[legSide], n.hup[legSide], n.writable[legSide] = true, c.hup[legSide], true
	p.nextID++
	c.legFD, c.unopened, c.unidentified, c.redirected = -1, true, false, false
	c.readable[legSide], c.hup[legSide], c.writable[legSide] = false, false, false
	p.egress.expect = append(p.egress.expect, c)
	p.egress.handshakes++
	p.insert(n)
	p.rep.conns[n.id] = n
	p.rep.detached = append(p.rep.detached, n)
	p.rewatchLeg(n)
}

// rewatchLeg tells epoll whose the leg is now.
func (p *Proxy) rewatchLeg(c *conn) {
	ev := unix.EpollEvent{Events: connEvents, Fd: c.slot<<1 | int32(legSide), Pad: c.gen}
	if err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_MOD, c.legFD, &ev); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: watch a leg")
	}
}

// launch begins the connections that have no record, at the end of a replay. If
// anything came out differently they may be repetitions of what a server has
// already, and are reset.
func (p *Proxy) launch(rep *replayState) (lost int) {
	for _, c := range rep.detached {
		switch {
		case c.gone:
		case len(rep.diverged) > 0:
			p.opts.Log.WithFields(connFields(c)).Error("netproxy: connection that has no record; reset")
			p.destroy(c, true)
			lost++
		default:
			if p.failed == nil {
				c.acceptedAt = p.opts.Journal.AppendOpen(journal.ConnOpen{
					Conn: c.id, Direction: dirOut, Client: c.client, Server: c.dest, LegPort: c.legPort,
				})
				p.opts.Journal.AppendConsumed(c.id, 0)
			}
			p.stats.opened.Add(1)
			p.box.dials = append(p.box.dials, c)
		}
	}
	return lost
}

// joined is called when the server of a detached connection has answered.
func (p *Proxy) joined(c *conn) {
	c.detached = false
	p.egress.handshakes--
	if c.errno != 0 {
		p.abandon(c) // too late for a refusal
		return
	}
	c.unopened = false
	p.activate(c)
}
