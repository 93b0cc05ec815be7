package netproxy

import (
	"bytes"
	"slices"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/netproxy/session"
)

// made is what the application asked on a virtual leg that changed the session's state.
type made struct {
	request, answer []byte
	class           session.Class // after it
	// harmless: a server does not mind whether it is asked in one more session. begins:
	// it begins a transaction.
	harmless, begins bool
}

// madeKept bounds what is kept of one leg.
const madeKept = 256

// only is m without what is of use for what can be asked again only.
func (m made) only() made {
	if !m.harmless {
		m.request, m.answer = nil, nil
	}
	return m
}

// path is how the session came about that the application takes a virtual leg for.
type path struct {
	base session.Class // when the leg was made
	made []made
}

// before is the class before step i.
func (p *path) before(i int) session.Class {
	if i == 0 {
		return p.base
	}
	return p.made[i-1].class
}

// add notes a request. What came of a transaction that has ended is taken out, but for
// what outlasts it.
func (p *path) add(m made) {
	if m.class == p.before(len(p.made)) {
		return
	}
	for k := range p.made {
		if p.before(k) == m.class { // as if nothing had been said since
			p.made = p.made[:k]
			return
		}
	}
	p.made = append(p.made, m.only())
	for k := range p.made {
		at := p.before(k)
		if !at.Like(m.class, true) {
			continue
		}
		inner := p.made[k:]
		p.made = slices.Clip(p.made[:k])
		for i, e := range inner {
			was := at
			if i > 0 {
				was = inner[i-1].class
			}
			if e.harmless && !e.begins && was.Like(e.class, true) {
				e.class = e.class.After(at, true)
				p.made = append(p.made, e)
			}
		}
		break
	}
	if n := len(p.made); p.before(n) != m.class || n > madeKept {
		p.base, p.made = m.class, nil // nobody knows how
	}
}

// to finds how a session is brought to a class: from what, and by which steps. From
// says of a class whether a session of it can be had.
func (p *path) to(class session.Class, from func(session.Class) bool) (session.Class, []made) {
	for end := len(p.made); end > 0; end-- {
		if p.made[end-1].class != class {
			continue
		}
		for i := end - 1; i >= 0 && p.made[i].harmless; i-- {
			if at := p.before(i); from(at) {
				return at, p.made[i:end]
			}
		}
	}
	return class, nil
}

// raise is what is said to a server, before a session goes live, to bring it to the
// state in which the application takes it to be: it was answered from the record.
type raise struct {
	steps   []made
	said    []byte // by the server, of the answer to the first of them
	rest    []byte // what the application has asked, and comes next
	in, out uint64 // where the connection's streams stood
	until   time.Time
}

// raiseLimit bounds that: the application waits, and no checkpoint can be made.
const raiseLimit = 5 * time.Second

// raised gives a leg whose session is not there one that is brought to its state, a new
// one if need be. It reports whether it is known how: the way of another leg will do.
func (p *Proxy) raised(v *conn, paths []*path, free *[]*conn) bool {
	var none session.Class
	from := func(class session.Class) bool { return class == none || findClass(*free, class) >= 0 }
	for _, of := range append([]*path{&v.virtual.path}, paths...) {
		at, steps := of.to(v.virtual.class, from)
		if steps == nil {
			continue
		}
		r := &raise{steps: steps}
		k := findClass(*free, at)
		if k < 0 {
			p.launchVirtual(v, r)
			return true
		}
		c := (*free)[k]
		*free = slices.Delete(*free, k, k+1)
		p.bind(v, c, c.inRead, r)
		return true
	}
	return false
}

// findClass finds a connection whose session is of a class; -1: there is none.
func findClass(list []*conn, class session.Class) int {
	return slices.IndexFunc(list, func(c *conn) bool { return c.session != nil && !c.session.Lost() && c.class() == class })
}

// beginRaise says the first to the server. Until all is answered the connection is one
// that is being opened.
func (p *Proxy) beginRaise(c *conn) {
	r := c.raise
	r.in, r.out, r.until = c.inRead, c.outRead, time.Now().Add(raiseLimit)
	p.send(c, r.steps[0].request)
	p.activate(c)
}

// pumpRaise reads what the server answers.
func (p *Proxy) pumpRaise(c *conn) {
	for c.readable[clientSide] && c.raise != nil && !c.raise.until.IsZero() && !c.gone {
		n, e := recvNB(c.clientFD, p.scratch)
		switch {
		case e == syscall.EAGAIN:
			c.readable[clientSide] = false
		case e != 0 || n == 0:
			p.failRaise(c, "the server has ended it")
		default:
			p.record(c, p.scratch[:n])
			c.raise.said = append(c.raise.said, p.scratch[:n]...)
			if c.session == nil {
				p.failRaise(c, "its protocol is not known")
				return
			}
			p.learn(c, func(t *session.Tracker) { t.Heard(p.scratch[:n]) })
			if p.stepRaise(c); c.raise != nil && len(c.raise.said) > repeatedAnswer {
				p.failRaise(c, "the server's answer has no end")
			}
		}
	}
}

// stepRaise goes on when the server has answered.
func (p *Proxy) stepRaise(c *conn) {
	r := c.raise
	step := &r.steps[0]
	switch {
	case c.session.Lost():
		p.failRaise(c, "the server has answered in another way")
		return
	case !c.session.Resting() && (len(r.steps) == 1 || len(r.said) < len(step.answer)):
		return // more comes
	case !c.session.Resting(): // it is asked for a password, which comes next
	case c.class() != step.class || step.begins && !bytes.Equal(r.said, step.answer):
		p.failRaise(c, "the server has answered in another way")
		return
	}
	if r.steps, r.said = r.steps[1:], nil; len(r.steps) > 0 {
		p.send(c, r.steps[0].request)
		return
	}
	// The application has had these answers, and written these requests.
	c.raise = nil
	in, out := c.inRead-r.in, c.outRead-r.out
	c.inSent, c.inConsumed = c.inSent+in, c.inConsumed+in
	c.inBase, c.outBase = c.inBase-uint32(in), c.outBase-uint32(out)
	if p.failed == nil {
		p.opts.Journal.AppendConsumed(c.id, c.inConsumed)
	}
	c.consumedMark, c.first = c.inConsumed, r.rest
	p.joined(c)
}

// failRaise ends a connection whose session can't be brought to its state.
func (p *Proxy) failRaise(c *conn, why string) {
	p.opts.Log.WithFields(connFields(c)).WithField("why", why).Error("netproxy: the session that the application takes this for can't be had; reset")
	p.abandon(c)
}

// expireRaises ends those that take too long.
func (p *Proxy) expireRaises(now time.Time) {
	for _, c := range p.slots {
		if c != nil && c.raise != nil && !c.raise.until.IsZero() && now.After(c.raise.until) {
			p.failRaise(c, "the server does not answer")
		}
	}
}
