package netproxy

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/netproxy/session"
)

// virtual is what only a leg has that stands in a replay with no server behind it.
type virtual struct {
	upstream *upstream
	skip     uint64    // bytes that were written before the cut, and come again
	asked    []byte    // read from the leg, and no exchange yet
	cur      *exchange // made last
	said     []byte    // an answer that has no record, and is to be delivered
	// class is that of the session that the application takes the leg for; home was
	// the connection's at the cut.
	class session.Class
	home  *conn
	path  path
}

// loosen makes virtual legs of those that the checkpoint's image holds.
func (p *Proxy) loosen() {
	for _, u := range p.rep.upstreams {
		for _, c := range u.conns {
			if c.legFD < 0 {
				c.unopened = true
				continue
			}
			v := p.newVirtual(u, &conn{
				client: c.client, dest: c.dest, legFD: c.legFD, inBase: c.inBase, outBase: c.outBase, origin: c.origin,
				inSent: c.inSent, inConsumed: c.inConsumed, outPos: c.outPos, inflight: c.inflight,
			})
			v.readable[legSide], v.writable[legSide] = true, true
			v.hup[legSide], v.shut[legSide] = c.hup[legSide], c.shut[legSide]
			v.redirected, v.virtual.skip = c.redirected, c.queued-min(c.queued, c.outPos)
			c.legFD, c.unopened, c.redirected, c.inflight = -1, true, false, false
			c.readable[legSide], c.writable[legSide], c.hup[legSide], c.shut[legSide] = false, false, false, false
			x := c.exchanges[0]
			x.leg, x.fed, x.allowed = v, max(x.fed, c.inSent), max(x.fed, c.inSent)
			v.virtual.cur, v.virtual.class, v.virtual.home, v.virtual.path.base = x, x.after, c, x.after
			u.legs = append(u.legs, v)
			p.rewatchLeg(v)
			p.activate(v)
		}
	}
}

func (p *Proxy) newVirtual(u *upstream, v *conn) *conn {
	v.id, v.dir, v.clientFD, v.unopened, v.borrowed = p.nextID, dirOut, -1, true, true
	v.virtual = &virtual{upstream: u}
	v.consumedMark = math.MaxUint64 // of the record's connections something is recorded
	p.nextID++
	p.insert(v)
	return v
}

// admitVirtual lets the application connect to servers that speak HTTP/1.
func (p *Proxy) admitVirtual() {
	e := p.egress
	e.syns = slices.DeleteFunc(e.syns, func(s *syn) bool {
		u := p.rep.upstreams[s.server]
		if u == nil {
			return false
		}
		v := p.newVirtual(u, &conn{client: s.client, dest: s.server, legFD: -1})
		v.stray, v.syn = true, s
		e.opening[s.pair] = v
		p.grant(v)
		return true
	})
}

// hear reads what the application writes to a virtual leg.
func (p *Proxy) hear(v *conn) {
	if v.legFD < 0 || p.rep == nil || p.phase != replaying {
		return
	}
	for v.readable[legSide] && !ended(v) && len(v.virtual.asked) < requestLimit {
		n, e := recvNB(v.legFD, p.scratch)
		switch {
		case e == syscall.EAGAIN:
			v.readable[legSide] = false
		case e != 0:
			v.failed[legSide] = true
		case n == 0:
			v.eof[legSide] = true
		default:
			v.outPos += uint64(n)
			skip := min(v.virtual.skip, uint64(n))
			v.virtual.skip -= skip
			v.virtual.asked = append(v.virtual.asked, p.scratch[skip:n]...)
		}
	}
	p.ask(v)
	if x := v.virtual.cur; v.failed[legSide] || v.eof[legSide] && (x == nil || x.fed == x.InTo) && len(v.virtual.asked) == 0 {
		p.destroy(v, true) // as a pool does with a connection too many
	}
}

// ask looks for the record of what the application asks on a virtual leg, and
// answers as far as the replay has come.
func (p *Proxy) ask(v *conn) {
	w := v.virtual
	if len(w.asked) == 0 || len(w.said) > 0 || w.cur != nil && w.cur.fed < w.cur.InTo {
		return
	}
	n := lengthIn(w.upstream.speaks, w.asked)
	if n == 0 {
		return
	}
	if s := w.upstream.speaks; s != nil && len(w.asked) == n && bytes.Equal(w.asked, s.Farewell()) {
		w.asked = nil
		p.shutLeg(v) // as the server does; the application may wait for that
		return
	}
	bare := bareIn(w.upstream.speaks, w.asked)
	x := v.recordOf(n, bare)
	if x == nil {
		p.answerProbe(v, n)
		return
	}
	method, _, _ := bytes.Cut(w.asked[:min(len(w.asked), 32)], []byte(" "))
	x.method, x.leg, x.shift = string(method), v, v.inSent-x.InFrom
	w.cur, w.class = x, w.class.After(x.after, bare)
	request := w.asked[:x.Length()]
	w.asked = w.asked[x.Length():]
	w.path.add(made{request, x.recorded(p.rep.plan), w.class, x.harmless(), x.begins})
	p.stats.swallowed.Add(x.Length())
	p.serve(x)
}

// recordOf takes the record of what the application asks on the leg, which is n bytes
// of requests; nil: there is none.
func (v *conn) recordOf(n int, bare bool) *exchange {
	w := v.virtual
	of := func(x *exchange) bool { return x.before == w.class && (x.madeBy(w.asked, n) || x.opens(w, n)) }
	if n < 0 {
		// The rest of a request that was begun before the cut goes on where it was.
		of = func(x *exchange) bool {
			return w.cur != nil && x.conn == w.cur.conn && len(w.asked) >= int(x.Length()) && x.madeBy(w.asked, int(x.Length()))
		}
	}
	i := slices.IndexFunc(w.upstream.open, of)
	if i < 0 && n > 0 && bare {
		i = slices.IndexFunc(w.upstream.open, func(x *exchange) bool { return x.before.Like(w.class, bare) && x.madeBy(w.asked, n) })
	}
	if i < 0 || w.upstream.open[i].begins && !w.upstream.open[i].complete() {
		// Rather that than one whose answer nobody has: others may need that transaction.
		if x := v.prepared(n, bare); x != nil {
			return x
		}
	}
	if i < 0 {
		return w.asksAgain(n)
	}
	x := w.upstream.open[i]
	w.upstream.open = slices.Delete(w.upstream.open, i, i+1)
	return x
}

// inVain reports whether the leg waits for the answer to a request that has no
// record.
func (p *Proxy) inVain(v *conn) bool {
	w := v.virtual
	return !v.gone && len(w.asked) > 0 && (w.cur == nil || w.cur.fed == w.cur.InTo) && lengthIn(w.upstream.speaks, w.asked) != 0 &&
		!p.waitsForRepeat(v)
}

// askedInVain reports whether the application makes a request to a server that has
// no record, while the record has one that it has not made: it may be the same, in
// another way, and must not be made twice. That can't be if the application had gone
// on after all that the record has, and has come as far again without: a timer had
// made them.
func (p *Proxy) askedInVain() bool {
	for _, u := range p.rep.upstreams {
		if slices.ContainsFunc(u.open, (*exchange).matters) && slices.ContainsFunc(u.legs, p.inVain) && (p.owesOutput() || slices.ContainsFunc(u.open, p.atWork)) {
			return true
		}
	}
	return false
}

// harmless reports whether the request only prepared a session, or began a transaction: a
// server does not mind whether that is asked once more.
func (x *exchange) harmless() bool { return x.prepares || x.begins }

// matters reports whether it makes a difference that the request was made.
func (x *exchange) matters() bool { return !x.harmless() && !x.undone }

// atWork reports whether the application may have been waiting for the answer, or
// at work with it, when it crashed.
func (p *Proxy) atWork(x *exchange) bool {
	return x.last && !p.rep.plan.Conns[x.conn.id].AppEnded
}

// relax keeps a replay going whose application does things in another order.
func (p *Proxy) relax() {
	now := time.Now()
	if len(p.rep.upstreams) == 0 || now.Sub(p.rep.begun) < p.outOfTurn() {
		return
	}
	if !p.still(now, p.outOfTurn()) || p.answerAhead() {
		return
	}
	if now.Sub(p.rep.quiet.since) > askedQuiet && p.askedInVain() {
		p.rep.passed = askedSteps + 1
	}
}

// checkAsked ends a replay that lacks what the application asks a server for.
// While differences are tolerated, the connections on which it asks are reset.
func (p *Proxy) checkAsked() error {
	if p.rep.passed <= askedSteps || !p.askedInVain() {
		return nil
	}
	p.rep.passed = 0
	for dest, u := range p.rep.upstreams {
		if len(u.open) == 0 {
			continue
		}
		for _, v := range u.legs {
			if !p.inVain(v) {
				continue
			}
			if !p.rep.tolerate {
				return p.overcrowded(fmt.Sprintf("what the application writes to %s is in no record", dest))
			}
			p.opts.Log.WithFields(connFields(v)).Error("netproxy: request that has no record; reset")
			p.stats.differing.Add(1)
			p.rep.diverged = append(p.rep.diverged, v.id)
			p.rep.reset++
			p.destroy(v, true)
		}
	}
	return nil
}

// owesUpstream reports whether the application has still to make a request again,
// or to take an answer. One that sleeps, and has been given all its input, makes what
// is left by a timer: see repeats.
func (p *Proxy) owesUpstream() bool {
	asleep := len(p.turns.wait) == 0 && min(time.Since(p.rep.quiet.since), time.Since(p.rep.since)) > aheadQuiet &&
		(p.opts.Idle == nil || p.opts.Idle())
	for _, u := range p.rep.upstreams {
		if len(u.open) > 0 && !asleep {
			return true
		}
		for _, v := range u.legs {
			if x := v.virtual.cur; !v.gone && !ended(v) && (len(v.virtual.said) > 0 || v.inConsumed < v.inSent || x != nil && x.fed < x.allowed) {
				return true
			}
		}
	}
	return false
}
