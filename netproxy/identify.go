package netproxy

import (
	"syscall"

	"github.com/cespare/xxhash/v2"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// identify finds out, by what the application writes first, which recorded
// connection a leg belongs to: an application with several threads opens
// connections to one server in any order. It reports whether output of c may be
// read from its leg now.
func (p *Proxy) identify(c *conn) bool {
	if !c.readable[legSide] || c.legFD < 0 || p.box.left() < readSize {
		return false
	}
	n, e := peekNB(c.legFD, p.box.arena[p.box.used:])
	if e == syscall.EAGAIN {
		c.readable[legSide] = false
		return false
	}
	data := p.box.arena[p.box.used:][:max(n, 0)]
	same, more := startsLike(c, data)
	if same || n <= 0 {
		c.unidentified = false
		return true
	}
	for _, o := range p.rep.outgoing {
		if o == c || o.dest != c.dest || o.gone || !o.unopened && !o.unidentified {
			continue
		}
		like, short := startsLike(o, data)
		if like && o.syn != nil {
			p.activate(c) // as soon as the other's handshake is over
			return false
		}
		if like {
			p.swapLegs(c, o)
			o.unidentified = false
			return false
		}
		more = more || short
	}
	if more && !c.hup[legSide] {
		c.readable[legSide] = false // what was peeked at comes again with the next byte
		return false
	}
	p.detach(c)
	return !c.unopened
}

// startsLike compares the beginning of a stream with a connection's record. More
// means that it takes more bytes to know.
func startsLike(c *conn, data []byte) (same, more bool) {
	if len(c.expect) == 0 || c.expect[0].Offset != 0 {
		return false, false
	}
	e := &c.expect[0]
	if uint64(len(data)) < e.End() {
		return false, true
	}
	return matches(e, data[:e.End()]), false
}

// matches compares a whole stretch.
func matches(e *replay.Output, data []byte) bool {
	if e.Bytes != nil {
		return string(e.Bytes) == string(data)
	}
	return xxhash.Sum64(data) == e.Hash
}

// swapLegs exchanges the legs of two recorded connections on which nothing has
// been done yet. One of them may have none.
func (p *Proxy) swapLegs(a, b *conn) {
	a.client, b.client = b.client, a.client
	a.legFD, b.legFD = b.legFD, a.legFD
	a.inBase, b.inBase = b.inBase, a.inBase
	a.outBase, b.outBase = b.outBase, a.outBase
	a.origin, b.origin = b.origin, a.origin
	a.unopened, b.unopened = b.unopened, a.unopened
	a.redirected, b.redirected = b.redirected, a.redirected
	for _, flags := range [...]func(*conn) *bool{
		func(c *conn) *bool { return &c.readable[legSide] },
		func(c *conn) *bool { return &c.writable[legSide] },
		func(c *conn) *bool { return &c.hup[legSide] },
	} {
		x, y := flags(a), flags(b)
		*x, *y = *y, *x
	}
	for _, c := range [...]*conn{a, b} {
		if c.legFD < 0 {
			c.unidentified = false
			p.egress.expect = append(p.egress.expect, c)
			continue
		}
		p.egress.opened(c)
		p.enter(c)
		p.rewatchLeg(c)
		p.activate(c)
	}
}
