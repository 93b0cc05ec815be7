package netproxy

import (
	"fmt"
	"math"
	"slices"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/netproxy/replay"
)

// In a replay an application with several threads opens connections to one
// server in any order, and takes another one of its pool for a request than it
// took in its first life. What it writes tells which recorded connection a leg
// stands for: each stretch of output is compared with what comes next in the
// record of every connection to that server, before it is read, and legs change
// their connections accordingly. A leg on which something has been done already
// changes only with a request that stands alone (standalone). Servers that are
// known to speak HTTP/1 are dealt with in another way (upstream).

const (
	// peekSize bounds what is compared before it is read. A longer stretch belongs
	// to the connection whose leg it is on.
	peekSize = readSize
	// restLimit is how long the rest of a stretch is waited for: what was read at
	// once was written within microseconds.
	restLimit = 50 * time.Millisecond
)

// placement is what a replay knows of a leg towards a server.
type placement struct {
	held     bool // its output waits until it is known whose it is
	heldFrom time.Time
	peeked   int // bytes seen when it was last looked at
	peekedAt time.Time
}

// place says how many bytes may be read from the leg as the output of c.
func (p *Proxy) place(c *conn) int {
	e := nextOutput(c)
	switch {
	case c.diverged || p.alone(c):
		return math.MaxInt
	case c.outPos < c.queued:
		return int(c.queued - c.outPos)
	case e != nil && e.Offset != c.outPos: // in the midst of a stretch
		return int(max(e.End(), c.outPos+1) - c.outPos)
	case !c.readable[legSide]:
		return 0
	case p.box.left() < peekSize:
		p.activate(c)
		return 0
	}
	n, errno := peekNB(c.legFD, p.box.arena[p.box.used:][:peekSize])
	if errno == syscall.EAGAIN {
		c.readable[legSide] = false
		return 0
	}
	if n <= 0 {
		return p.placeEnd(c, e)
	}
	data := p.box.arena[p.box.used:][:n]
	owner, wait := p.ownerOf(c, e, data)
	switch {
	case owner == c:
		c.held, c.unidentified = false, false
		return int(e.End() - c.outPos)
	case owner != nil:
		p.swapLegs(c, owner)
		return 0
	case !wait && c.unidentified && !c.detached:
		p.detach(c)
		return 0
	case !wait && !c.detached && !p.doubtful(c, e, data):
		c.held = false
		return math.MaxInt
	}
	p.keep(c)
	return 0
}

// placeEnd is place for a leg that the application has closed. If the recorded
// application went on with the connection, it does so on another leg.
func (p *Proxy) placeEnd(c *conn, e *replay.Output) int {
	if e == nil || c.detached {
		return math.MaxInt
	}
	if !p.atRest(c) {
		p.keep(c) // perhaps it has not been seen to take its input
		return 0
	}
	p.egress.ended = append(p.egress.ended, endedFlow{flow: c.flow(), at: time.Now()})
	closeReset(c.legFD)
	p.bereave(c)
	return 0
}

// ownerOf finds the connection in whose record the data comes next, the earliest
// if there are several; nil: none. Wait means that it may show later.
func (p *Proxy) ownerOf(c *conn, e *replay.Output, data []byte) (owner *conn, wait bool) {
	now := time.Now()
	if len(data) != c.peeked {
		c.peeked, c.peekedAt = len(data), now
	}
	short := now.Sub(c.peekedAt) < restLimit && !c.hup[legSide]
	single := standalone(data)
	p.rep.stateless[c.dest] = p.rep.stateless[c.dest] || single
	if e != nil {
		same, more := startsLike(e, data)
		switch {
		case same:
			owner = c
		case more && len(data) == peekSize:
			return c, false
		}
		wait = more && short
	}
	if owner == c && !single {
		return c, false
	}
	for _, o := range p.rep.outgoing {
		if o == c || o.dest != c.dest || o.gone || o.diverged {
			continue
		}
		oe := nextOutput(o)
		if oe == nil || oe.Offset != o.outPos {
			continue
		}
		like, more := startsLike(oe, data)
		switch {
		case more:
			wait = wait || short
		case !like:
		case !p.mayChange(c, o, single) || o.syn != nil:
			wait = true
		case owner == nil || oe.Seq < nextOutput(owner).Seq:
			owner = o
		}
	}
	return owner, wait
}

// mayChange reports whether c and o may exchange their legs now.
func (p *Proxy) mayChange(c, o *conn, single bool) bool {
	if p.fresh(c) && p.fresh(o) {
		return true
	}
	return single && p.atRest(c) && p.atRest(o)
}

// fresh reports that nothing has been done on the leg, if there is one.
func (p *Proxy) fresh(c *conn) bool { return c.unopened || c.unidentified || p.unsaid(c) }

// unsaid reports that nothing was said on the recorded connection, nor is on its
// leg: it was opened when the crash came, and is as good as any other.
func (p *Proxy) unsaid(c *conn) bool {
	pc := p.rep.plan.Conns[c.id]
	return pc != nil && pc.Image == nil && pc.Unused() && !pc.Ended && !pc.AppEnded && c.inSent == 0 && c.outPos == 0
}

// atRest reports that the server has answered all that was written to the leg,
// and that the application has taken it.
func (p *Proxy) atRest(c *conn) bool {
	if c.legFD < 0 {
		return true
	}
	if c.inSent != c.inConsumed || !c.in.empty() || !c.late.empty() || c.outPos < c.queued ||
		c.shut[legSide] || c.eof[legSide] || c.failed[legSide] {
		return false
	}
	pc := p.rep.plan.Conns[c.id]
	return pc == nil || !pc.Due(c.inSent, c.outPos)
}

// doubtful reports whether what the application writes may be a repetition of
// something that is in another connection's record, and must not pass.
func (p *Proxy) doubtful(c *conn, e *replay.Output, data []byte) bool {
	if e != nil {
		// It differs from its own record.
		return standalone(data)
	}
	return slices.ContainsFunc(p.rep.outgoing, func(o *conn) bool {
		return o != c && o.dest == c.dest && !o.gone && o.outPos < o.outRead
	})
}

// alone reports whether the leg can only be that of c.
func (p *Proxy) alone(c *conn) bool {
	return !c.unidentified && !c.detached && p.rep.servers[c.dest] == 1
}

// keep leaves the output where it is until something has moved.
func (p *Proxy) keep(c *conn) {
	if !c.held {
		c.held, c.heldFrom = true, time.Now()
		p.rep.heldMove = c.heldFrom
		p.rep.held = append(p.rep.held, c)
	}
}

// reconsider looks again at what is held when anything has moved, and now and
// then.
func (p *Proxy) reconsider() {
	if len(p.rep.held) == 0 {
		return
	}
	at, now := p.position(), time.Now()
	if at == p.rep.heldAt && now.Sub(p.rep.heldLook) < restLimit/4 {
		return
	}
	if at != p.rep.heldAt {
		p.rep.heldMove = now
	}
	p.rep.heldAt, p.rep.heldLook = at, now
	p.rep.held = slices.DeleteFunc(p.rep.held, func(c *conn) bool { return !c.held || c.gone || c.legFD < 0 })
	for _, c := range p.rep.held {
		p.activate(c)
	}
}

// checkHeld ends a replay in which the application writes to a server what is in
// no record, while a record waits for its output: it may do again, in another way,
// what was done already. Before the replay's last step is done the output may
// still come, unless it is that of the very connection.
func (p *Proxy) checkHeld(last bool) error {
	now := time.Now()
	if len(p.rep.held) == 0 || !last && now.Sub(p.rep.since) < strayLimit {
		return nil
	}
	// A small pool may be full of requests that are new, while that for which the
	// record waits has no connection left.
	last = last || now.Sub(p.rep.heldMove) > strayLimit && (p.opts.Idle == nil || p.opts.Idle())
	for _, c := range p.rep.held {
		owes := c.outPos < c.outRead
		switch {
		case !c.held || c.gone || c.diverged || c.legFD < 0:
			continue
		case !last && (!owes || now.Sub(c.heldFrom) < strayLimit):
			continue
		case !owes && !p.doubtful(c, nil, nil):
			continue
		case !p.rep.tolerate:
			return fmt.Errorf("%w: what the application writes to %s is in no record", ErrDiverged, c.dest)
		}
		p.differ(c)
		p.activate(c)
	}
	return nil
}

// nextOutput is what c is expected to write next; nil: nothing.
func nextOutput(c *conn) *replay.Output {
	for len(c.expect) > 0 && c.expect[0].End() <= c.outPos {
		c.expect = c.expect[1:]
	}
	if len(c.expect) == 0 {
		return nil
	}
	return &c.expect[0]
}

// startsLike compares the beginning of data with a stretch. More means that it
// takes more bytes to know.
func startsLike(e *replay.Output, data []byte) (same, more bool) {
	if len(data) < int(e.Length) {
		return false, true
	}
	data = data[:e.Length]
	if e.Bytes != nil {
		return string(e.Bytes) == string(data), false
	}
	return fingerprint(data) == e.Hash, false
}
