package netproxy

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

// acceptBatch bounds the connections taken in one round, so that a flood of
// them does not starve those that exist.
const acceptBatch = 64

// accepting reports whether new connections may be taken now. Otherwise they
// wait, established, in the listener's backlog.
func (p *Proxy) accepting() bool {
	return p.phase == live && len(p.conns) < p.opts.MaxConnections
}

func (p *Proxy) accept() {
	if err := p.inside.enter(); err != nil {
		p.opts.Log.WithError(err).Error("netproxy: accept")
		p.acceptDue = false // the next connection tries again
		return
	}
	defer p.inside.leave()
	p.openWaiting()
	more := false
	for _, l := range p.listeners() {
		// Not until it says that there are no more: that costs the kernel as much
		// as a connection does.
		queued := backlog(l)
		for i := 0; i < queued; i++ {
			if i == acceptBatch || !p.accepting() {
				more = true
				break
			}
			fd, client, e := acceptNB(l)
			if e == unix.ECONNABORTED {
				continue
			}
			if e != 0 {
				if e != unix.EAGAIN {
					p.opts.Log.WithError(e).Warn("netproxy: accept")
				}
				break
			}
			p.open(fd, client)
		}
	}
	p.acceptDue = more
}

// open makes the connection and its leg. A client whose leg can't be made is
// reset, as the application's kernel would have done.
func (p *Proxy) open(fd int, client netip.AddrPort) {
	dest, e := localName(fd)
	if e != 0 {
		closeReset(fd)
		return
	}
	c := &conn{id: p.nextID, client: client, dest: dest, clientFD: fd, legFD: -1}
	p.noteClient(c)
	if err := p.dialLeg(c); err != nil {
		p.refused(c, err)
		return
	}
	p.nextID++
	c.connecting = true
	p.insert(c)
	p.stats.accepted.Add(1)
	c.acceptedAt = p.opts.Journal.AppendOpen(journal.ConnOpen{
		Conn: c.id, Direction: journal.In, Client: c.client, Server: c.dest, LegPort: c.legPort,
	})
	if err := p.watchConn(c); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: watch a connection")
		p.destroy(c, true)
		return
	}
	// Over loopback the handshake is usually finished when connect returns.
	if established(c.legFD) {
		p.legConnected(c)
	}
}

// refused ends a client's connection whose leg was refused at once: the
// listener is gone, so the destination is not intercepted any longer.
func (p *Proxy) refused(c *conn, err error) {
	if c.clientFD >= 0 {
		closeReset(c.clientFD)
	}
	p.forgetClient(c)
	if errors.Is(err, unix.ECONNREFUSED) {
		p.forget(c.dest)
		return
	}
	p.opts.Log.WithError(err).WithField("client", c.client).Warn("netproxy: leg")
}

// forget stops intercepting a destination on which nobody listens; it is
// learned again with the first SYN after somebody does.
func (p *Proxy) forget(dest netip.AddrPort) {
	if p.phase != live || p.opts.Dying() != Alive {
		return
	}
	if err := p.rules.Forget(dest); err != nil {
		p.opts.Log.WithError(err).WithField("destination", dest).Warn("netproxy: forget a destination")
	}
}

// insert gives the connection its place in the tables.
func (p *Proxy) insert(c *conn) {
	p.gen++
	c.gen = p.gen
	if n := len(p.freeSlots); n > 0 {
		c.slot = p.freeSlots[n-1]
		p.freeSlots = p.freeSlots[:n-1]
		p.slots[c.slot] = c
	} else {
		c.slot = int32(len(p.slots))
		p.slots = append(p.slots, c)
	}
	p.conns[c.id] = c
	p.enter(c)
	p.stats.conns.Store(int64(len(p.conns)))
}

// lateConns is how many connections that have ended are remembered: the
// application may still read what it was given.
const lateConns = 16384

// enter makes the connection the owner of its application's socket.
func (p *Proxy) enter(c *conn) { p.byApp[c.appKey()] = c }

// leave keeps the owner of a socket known for a while after its end.
func (p *Proxy) leave(c *conn) {
	c.expect, c.spans = nil, nil
	if len(p.late) < lateConns {
		p.late = append(p.late, c)
		return
	}
	old := p.late[p.lateAt]
	if key := old.appKey(); p.byApp[key] == old {
		delete(p.byApp, key)
	}
	p.late[p.lateAt] = c
	p.lateAt = (p.lateAt + 1) % lateConns
}

const connEvents = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// watchConn registers the connection's sockets, edge-triggered: the first wait
// reports what is true already.
func (p *Proxy) watchConn(c *conn) error {
	if c.clientFD >= 0 {
		if err := p.watch(c.clientFD, c.slot<<1|int32(clientSide), c.gen, connEvents); err != nil {
			return err
		}
	}
	return p.watchLeg(c)
}

func (p *Proxy) watchLeg(c *conn) error {
	if c.legFD < 0 {
		return nil
	}
	return p.watch(c.legFD, c.slot<<1|int32(legSide), c.gen, connEvents)
}

// connected is called when the leg's handshake has ended, one way or the other.
func (p *Proxy) connected(c *conn) {
	if e, err := unix.GetsockoptInt(c.legFD, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
		c.connecting = false
		c.failed[legSide] = true
		if unix.Errno(e) == unix.ECONNREFUSED {
			p.forget(c.dest)
		}
		p.closes = append(p.closes, c)
		return
	}
	if established(c.legFD) {
		p.legConnected(c)
	}
}

// legConnected begins to relay.
func (p *Proxy) legConnected(c *conn) {
	seqs, err := tcprepair.BaseSeqs(c.legFD, 0)
	if err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: sequence numbers of a leg")
		c.failed[legSide] = true
		p.closes = append(p.closes, c)
		return
	}
	c.connecting = false
	c.inBase, c.outBase, c.origin = seqs.In, seqs.Out, seqs.In
	c.writable[legSide] = true
	p.vigil.meet(c)
	p.activate(c)
}
