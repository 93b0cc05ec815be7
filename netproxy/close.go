package netproxy

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
)

// handleCloses journals the ends of streams that this round saw. It runs after
// the order of consumption was recorded, so that a close stands behind the
// input that the application took before it. What follows from a close is done
// by reapClosed, after the output before it has gone.
func (p *Proxy) handleCloses() {
	if len(p.closes) == 0 {
		return // what follows allocates
	}
	if p.phase == crashed || p.phase == replaying {
		return // goLive looks at every connection again
	}
	// Asked once a round, if at all: what ended was read before.
	dying := sync.OnceValue(p.opts.Dying)
	for _, c := range p.closes {
		if c.gone {
			continue
		}
		if !c.closing[clientSide] && (c.eof[clientSide] || c.failed[clientSide]) {
			c.closing[clientSide] = true
			p.appendClose(c, journal.In, c.failed[clientSide], c.inRead)
		}
		if !c.closing[legSide] && !c.suspect && (c.eof[legSide] || c.failed[legSide]) {
			if p.failed == nil && dying() != Alive {
				p.suspectClose(c)
				continue
			}
			p.acceptClose(c)
		}
	}
	p.box.ends = append(p.box.ends, p.closes...)
	p.closes = p.closes[:0]
}

// acceptClose believes that the living application ended the connection.
func (p *Proxy) acceptClose(c *conn) {
	c.suspect = false
	c.closing[legSide] = true
	c.endAt = p.appendClose(c, journal.Out, c.failed[legSide], c.outPos)
}

func (p *Proxy) appendClose(c *conn, dir journal.Direction, reset bool, offset uint64) journal.Position {
	if p.failed != nil {
		return 0
	}
	kind := journal.FIN
	if reset {
		kind = journal.RST
	}
	return p.opts.Journal.AppendClose(c.id, dir, kind, offset)
}

// suspectClose holds a close back: a process of the container is dying, and the
// end of the connection may be a crash that clients must not see.
func (p *Proxy) suspectClose(c *conn) {
	if len(p.suspects) == 0 {
		p.suspectAt = time.Now()
		p.firstSuspect.Store(p.suspectAt.UnixNano())
	}
	c.suspect = true
	p.suspects = append(p.suspects, c)
}

// askInterval bounds how often the processes of the container are looked at.
const askInterval = time.Millisecond

// checkSuspects lets held closes go when no process is dying any more, or when
// the init has outlived the suspicion.
func (p *Proxy) checkSuspects() {
	if len(p.suspects) == 0 || p.phase == crashed || p.phase == replaying || time.Since(p.askedAt) < askInterval {
		return
	}
	p.askedAt = time.Now()
	switch p.opts.Dying() {
	case InitDying:
		p.suspectAt = time.Now()
		return
	case ChildDying:
		if time.Since(p.suspectAt) < p.opts.DyingFor {
			return
		}
	}
	held := p.suspects
	p.suspects = nil
	p.firstSuspect.Store(0)
	for _, c := range held {
		if !c.gone {
			p.acceptClose(c)
			p.closes = append(p.closes, c)
		}
	}
}

// reapClosed passes the end of a stream on, once the bytes before it are out.
func (p *Proxy) reapClosed(c *conn) {
	switch {
	case c.gone || p.phase == crashed || p.phase == replaying:
		// goLive looks at every connection again.
	case !c.closing[clientSide] && (c.eof[clientSide] || c.failed[clientSide]):
		// Seen when output was sent, after the closes of this round were
		// journaled: the next round does both.
		p.closes = append(p.closes, c)
	default:
		p.finishClose(c)
	}
}

// outputEnded reports that the application's end of the stream may be passed
// on: its output is with the client, and the end is committed.
func (p *Proxy) outputEnded(c *conn) bool {
	return c.closing[legSide] && c.out.empty() && c.boxed == 0 && (p.failed != nil || p.opts.Journal.Committed() > c.endAt)
}

func (p *Proxy) finishClose(c *conn) {
	switch {
	case c.diverged && !c.ghost() && p.rep == nil:
		// Its client holds bytes that the restored application did not write.
		// There is no right continuation: end it, loudly, and only it.
		p.opts.Log.WithFields(connFields(c)).Error("netproxy: output differs from what the client was sent; connection reset")
		p.destroy(c, true)
	case c.closing[clientSide] && c.failed[clientSide]:
		p.destroy(c, true)
	case c.closing[legSide] && c.failed[legSide]:
		if c.ghost() || p.outputEnded(c) {
			p.destroy(c, true)
		}
	default:
		if c.closing[clientSide] && c.in.empty() && !c.connecting {
			p.shutLeg(c)
		}
		if p.outputEnded(c) {
			p.shutClient(c)
		}
		if (c.ghost() || c.shut[clientSide] && c.shut[legSide]) && c.closing[legSide] {
			p.destroy(c, false)
		}
	}
}

// destroy closes both sockets and frees what the connection held. The source
// port goes to the end of the allocator's queue; the application's late reads are
// still recorded.
func (p *Proxy) destroy(c *conn, reset bool) {
	if c.gone {
		return
	}
	p.closeSockets(c, reset)
	c.gone = true
	c.in.drop()
	c.out.drop()
	c.late.drop()
	if c.inflight {
		c.inflight = false
		p.inflight--
	}
	p.slots[c.slot] = nil
	p.freeSlots = append(p.freeSlots, c.slot)
	delete(p.conns, c.id)
	if c.dir == dirOut {
		p.egressGone(c)
	}
	p.leave(c)
	p.forgetClient(c)
	if !c.borrowed {
		p.ports.Put(legPeer(c), c.legPort)
	}
	p.stats.conns.Store(int64(len(p.conns)))
	if !p.acceptDue && len(p.conns) == p.opts.MaxConnections-1 {
		p.acceptDue = true
	}
}

func (p *Proxy) closeSockets(c *conn, reset bool) {
	for _, fd := range []*int{&c.clientFD, &c.legFD} {
		if *fd < 0 {
			continue
		}
		if reset {
			closeReset(*fd)
		} else {
			_ = unix.Close(*fd)
		}
		*fd = -1
	}
}

func connFields(c *conn) map[string]any {
	return map[string]any{"connection": c.id, "client": c.client.String(), "destination": c.dest.String()}
}
