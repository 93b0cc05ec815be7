package netproxy

import (
	"bytes"
	"slices"
)

// swapLegs exchanges the legs of two recorded connections, of which the second
// may have none.
func (p *Proxy) swapLegs(a, b *conn) {
	aIn, aOut := a.inBase+uint32(a.inSent), a.outBase+uint32(a.outPos)
	bIn, bOut := b.inBase+uint32(b.inSent), b.outBase+uint32(b.outPos)
	a.client, b.client = b.client, a.client
	a.legFD, b.legFD = b.legFD, a.legFD
	a.origin, b.origin = b.origin, a.origin
	a.redirected, b.redirected = b.redirected, a.redirected
	a.placement, b.placement = placement{}, placement{}
	for _, flags := range [...]func(*conn) *bool{
		func(c *conn) *bool { return &c.readable[legSide] },
		func(c *conn) *bool { return &c.writable[legSide] },
		func(c *conn) *bool { return &c.hup[legSide] },
	} {
		x, y := flags(a), flags(b)
		*x, *y = *y, *x
	}
	// The streams go on where they stand, the legs where they do.
	a.inBase, a.outBase = bIn-uint32(a.inSent), bOut-uint32(a.outPos)
	b.inBase, b.outBase = aIn-uint32(b.inSent), aOut-uint32(b.outPos)
	b.unidentified = false
	for _, c := range [...]*conn{b, a} {
		c.ackedOut = 0
		switch {
		case c.legFD >= 0:
			c.unopened = c.detached
			p.egress.opened(c)
			p.enter(c)
			p.rewatchLeg(c)
			p.activate(c)
		case c.detached:
			p.destroy(c, true)
		default:
			p.bereave(c)
		}
	}
}

// bereave makes c a connection whose leg the application has yet to open.
func (p *Proxy) bereave(c *conn) {
	c.legFD, c.unopened, c.unidentified, c.redirected = -1, true, false, false
	c.readable[legSide], c.hup[legSide], c.writable[legSide] = false, false, false
	c.placement = placement{}
	if pc := p.rep.plan.Conns[c.id]; pc != nil && pc.Image != nil {
		c.connected = true
	}
	if !slices.Contains(p.egress.expect, c) {
		p.egress.expect = append(p.egress.expect, c)
	}
}

// standalone reports whether a server's answer to the request that data begins
// with does not depend on the connection on which it comes: HTTP/1 is stateless
// (RFC 9110, section 3.3). Of other protocols that can't be known: a session may
// have been logged in, or hold a transaction.
func standalone(data []byte) bool {
	line, _, whole := bytes.Cut(data, []byte("\r\n"))
	method, rest, ok := bytes.Cut(line, []byte(" "))
	if !whole || !ok || len(method) == 0 || bytes.ContainsFunc(method, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		return false
	}
	return bytes.HasSuffix(rest, []byte(" HTTP/1.1")) || bytes.HasSuffix(rest, []byte(" HTTP/1.0"))
}
