package netproxy

import (
	"bytes"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// outputBudget bounds what one connection may send out during one round.
const outputBudget = 256 << 10

// readSize is the room that must be left in the arena for one more read.
const readSize = 32 << 10

// pumpOutput reads what the application wrote. The bytes stay in the arena
// until the round's commit.
func (p *Proxy) pumpOutput(c *conn) {
	if c.gone {
		return
	}
	if c.virtual != nil {
		p.hear(c)
		return
	}
	if p.rep != nil && c.upstream != nil {
		return // the replay has yet to begin; its leg becomes a virtual one
	}
	if !c.out.empty() && c.writable[clientSide] {
		p.sendOutput(c, nil)
	}
	placing := p.rep != nil && c.dir == dirOut
	if c.connecting || c.legFD < 0 || c.unopened && !(placing && c.detached) {
		return
	}
	if p.hushed() || !p.outputLate(c) {
		return
	}
	for budget := min(outputBudget, p.pool.share()); budget > 0; {
		if !c.readable[legSide] || c.eof[legSide] || c.failed[legSide] {
			return
		}
		room := p.room(c)
		if placing && room > 0 {
			room = min(room, p.place(c))
		}
		if room == 0 {
			return
		}
		if p.box.left() < readSize {
			if p.behind || p.stalled != nil {
				p.park(c)
				return
			}
			break // the rest in the next round
		}
		room = min(room, p.box.left())
		data := p.box.arena[p.box.used : p.box.used+room]
		n, marked, e := c.receive(legSide, c.legFD, data)
		switch {
		case e == syscall.EAGAIN:
			c.readable[legSide] = false
			return
		case e != 0:
			c.failed[legSide] = true
			p.closes = append(p.closes, c)
			return
		case n == 0:
			if len(c.asked) > 0 {
				p.send(c, c.passAsked()) // it goes on no more
			}
			c.eof[legSide] = true
			p.closes = append(p.closes, c)
			return
		}
		budget -= n
		switch {
		case marked:
		case n == room:
			c.more(legSide, c.legFD)
		case !c.hup[legSide] && !c.announced(legSide):
			c.readable[legSide] = false
		}
		if p.hushed() {
			// Perhaps it was written before the crash; nobody can tell.
			c.late.add(&p.pool, data[:n])
			return
		}
		p.box.used += n
		data = p.unlessRepeated(c, data[:n])
		if marked && len(data) > 0 && c.outPos >= c.outRead {
			c.urgent.out = append(c.urgent.out, c.outPos)
		}
		if p.output(c, data); c.gone {
			return
		}
		if p.phase == holding {
			p.ackLeg(c)
		}
	}
	p.activate(c)
}

// room is how much output may be read now: all that fits while the client takes
// what it gets; otherwise only what it has already, which is swallowed.
func (p *Proxy) room(c *conn) int {
	switch {
	case p.draining || c.diverged:
		return arenaSize
	case c.out.empty():
		return min(arenaSize, p.pool.share())
	case c.outPos < c.outRead:
		return int(min(c.outRead-c.outPos, arenaSize))
	}
	return 0
}

// output takes bytes that the application wrote: those that clients already
// have are compared and swallowed, the rest is fingerprinted and queued.
func (p *Proxy) output(c *conn, data []byte) {
	if c.outPos < c.outRead && !c.diverged {
		n := min(uint64(len(data)), c.outRead-c.outPos)
		p.compare(c, data[:n])
		p.stats.swallowed.Add(n)
		data = data[n:]
	}
	if c.diverged {
		// The client must not see a byte of this. The position moves on: gates
		// wait for it.
		c.outPos += uint64(len(data))
		return
	}
	if c.dir == dirOut && len(p.egress.repeats) > 0 && len(data) > 0 {
		data = p.unlessRecorded(c, data)
	}
	if len(data) > 0 {
		p.send(c, data)
	}
}

// send journals output and queues it.
func (p *Proxy) send(c *conn, data []byte) {
	if c.ghost() && c.dir == dirOut {
		// There is no server any more that could get this.
		c.outPos += uint64(len(data))
		p.differ(c)
		return
	}
	for len(data) > journal.MaxPayload { // a request that was kept back
		p.send(c, data[:journal.MaxPayload])
		data = data[journal.MaxPayload:]
	}
	if c.dir == dirOut {
		p.follow(c, data)
	}
	if p.failed == nil {
		if p.rawOutput {
			p.opts.Journal.AppendOutputBytes(c.id, c.outPos, data)
		} else {
			p.opts.Journal.AppendOutput(c.id, c.outPos, uint32(len(data)), fingerprint(data))
		}
		p.stats.outBytes.Add(uint64(len(data)))
	}
	c.outPos += uint64(len(data))
	c.outRead = c.outPos
	if !c.ghost() {
		p.box.put(c, data)
	}
}

// compare checks replayed output against the record and moves c.outPos.
func (p *Proxy) compare(c *conn, data []byte) {
	if c.outPos < c.queued {
		n := min(uint64(len(data)), c.queued-c.outPos)
		c.outPos += n
		data = data[n:]
	}
	for len(data) > 0 {
		for len(c.expect) > 0 && c.expect[0].End() <= c.outPos {
			c.expect = c.expect[1:]
		}
		if len(c.expect) == 0 || c.expect[0].Offset > c.outPos {
			// Output without a fingerprint: nothing to hold it against.
			c.outPos += uint64(len(data))
			p.differ(c)
			return
		}
		e := &c.expect[0]
		n := min(uint64(len(data)), e.End()-c.outPos)
		p.compareStretch(c, e, data[:n])
		data = data[n:]
	}
}

func (p *Proxy) compareStretch(c *conn, e *replay.Output, data []byte) {
	at := c.outPos - e.Offset
	c.outPos += uint64(len(data))
	if at == 0 {
		c.dated = isAnswer(data)
	}
	if e.Bytes != nil {
		was := e.Bytes[at : at+uint64(len(data))]
		if !bytes.Equal(was, data) && !(c.dated && sameUndated(was, data)) {
			p.differ(c)
		}
		c.dated = c.dated && c.outPos < e.End()
		return
	}
	if at == 0 {
		c.digest.Reset()
		c.digestOn = true
	}
	// A stretch that begins before the cut can't be checked: its first bytes
	// are not written again.
	if !c.digestOn {
		return
	}
	if c.dated {
		writeUndated(&c.digest, data)
	} else {
		_, _ = c.digest.Write(data)
	}
	if c.outPos == e.End() {
		c.digestOn, c.dated = false, false
		if c.digest.Sum64() != e.Hash {
			p.differ(c)
		}
	}
}

// differ counts a divergence: the connection's output is not what its client
// was told.
func (p *Proxy) differ(c *conn) {
	p.stats.differing.Add(1)
	if !c.diverged {
		c.diverged = true
		if p.rep != nil {
			p.rep.diverged = append(p.rep.diverged, c.id)
		}
		p.closes = append(p.closes, c)
	}
}

// sendOutput writes pending output and then data to the client; what the
// socket does not take stays pending.
func (p *Proxy) sendOutput(c *conn, data []byte) {
	if c.failed[clientSide] || c.clientFD < 0 {
		c.out.drop()
		return
	}
	for !c.out.empty() {
		n := p.sendClient(c, c.out.bytes())
		if n == 0 {
			break
		}
		c.out.advance(n)
	}
	if c.out.empty() && len(data) > 0 {
		data = data[p.sendClient(c, data):]
	}
	if c.failed[clientSide] {
		c.out.drop()
		return
	}
	c.out.add(&p.pool, data)
	if c.out.empty() {
		if c.readable[legSide] {
			p.activate(c)
		}
		if c.closing[legSide] {
			p.closes = append(p.closes, c)
		}
	}
}

func (p *Proxy) sendClient(c *conn, data []byte) int {
	n, e := c.sendBytes(data)
	switch {
	case e == syscall.EAGAIN:
		c.writable[clientSide] = false
		return 0
	case e != 0:
		c.failed[clientSide] = true
		p.closes = append(p.closes, c)
		return 0
	}
	c.outSent += uint64(n)
	if n < len(data) {
		c.writable[clientSide] = false
	}
	return n
}

// shutClient sends the application's FIN on.
func (p *Proxy) shutClient(c *conn) {
	if c.shut[clientSide] || c.clientFD < 0 {
		return
	}
	c.shut[clientSide] = true
	_ = unix.Shutdown(c.clientFD, unix.SHUT_WR)
}
