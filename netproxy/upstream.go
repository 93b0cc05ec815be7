package netproxy

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/session"
)

// upstream is what a replay knows of a server that speaks HTTP/1 with the
// application. There an answer does not depend on the connection on which it
// comes (RFC 9110, section 3.3), and an application with a pool of connections
// takes another one for a request in each of its lives, opens others and closes
// others. So the recorded connections do not come again: their exchanges do, on
// whatever connection the application makes the requests. Those are virtual, with
// nobody behind them, until the replay ends.
type upstream struct {
	conns []*conn     // recorded
	open  []*exchange // not made again yet, in the order of the record
	legs  []*conn     // virtual
	// speaks reads what is said in the sessions of the server, if it has such.
	speaks *session.Tracker
}

// findUpstreams finds the servers of a plan whose exchanges stand alone.
func (p *Proxy) findUpstreams(plan *replay.Plan) {
	p.rep.upstreams = map[netip.AddrPort]*upstream{}
	not := map[netip.AddrPort]bool{}
	for i := range plan.Steps {
		if s := &plan.Steps[i]; s.Kind == replay.Fail {
			not[s.Conn.Dest] = true
		}
	}
	http := map[netip.AddrPort]bool{}
	for _, pc := range plan.Conns {
		c := p.rep.conns[pc.ID]
		if c.dir != dirOut || not[c.dest] || c.urgent != nil {
			not[c.dest] = not[c.dest] || c.dir == dirOut
			continue
		}
		u := p.rep.upstreams[c.dest]
		if u == nil {
			u = &upstream{}
			p.rep.upstreams[c.dest] = u
		}
		list, ok := pc.Exchanges()
		if not[c.dest] = !ok || !u.speakAlike(c); not[c.dest] {
			continue
		}
		u.add(c, list)
		known, ok := speaksHTTP(pc, list)
		if c.session != nil {
			ok = c.classify(pc)
		}
		not[c.dest] = !ok
		http[c.dest] = http[c.dest] || known || c.http
	}
	for dest, u := range p.rep.upstreams {
		// A single session is compared as a stream: several threads may write to it.
		if not[dest] || !http[dest] && (u.speaks == nil || len(u.conns) < 2) || http[dest] && u.speaks != nil {
			delete(p.rep.upstreams, dest)
			continue
		}
		u.setProbesAside()
		slices.SortFunc(u.open, func(a, b *exchange) int { return cmp.Compare(a.seq(), b.seq()) })
		slices.SortFunc(u.conns, func(a, b *conn) int { return cmp.Compare(a.id, b.id) })
		for _, c := range u.conns {
			c.upstream = u
		}
	}
}

func (u *upstream) add(c *conn, list []replay.Exchange) {
	u.conns = append(u.conns, c)
	c.exchanges = make([]*exchange, len(list))
	for i := range list {
		x := &exchange{Exchange: list[i], conn: c, last: i == len(list)-1, fed: list[i].InFrom, allowed: list[i].InFrom, end: list[i].InTo}
		c.exchanges[i] = x
		if len(x.Outputs) > 0 && !x.Repeated && !x.farewell() {
			u.open = append(u.open, x)
		}
	}
}

// speaksHTTP reports whether what a connection's server has said may be HTTP/1
// with a final answer to each request, and whether it is known to be.
func speaksHTTP(pc *replay.Conn, list []replay.Exchange) (known, ok bool) {
	for i := range list {
		answer := pc.Slice(list[i].InFrom, list[i].InTo)
		if len(list[i].Outputs) == 0 || len(answer) == 0 {
			continue
		}
		n := min(len(answer), len(httpAnswer))
		if string(answer[:n]) != httpAnswer[:n] {
			return false, false
		}
		known = known || n == len(httpAnswer)
		// "HTTP/1.1 100": more comes, or another protocol.
		if _, status, _ := bytes.Cut(answer[:min(len(answer), 16)], []byte(" ")); len(status) > 0 && status[0] == '1' {
			return false, false
		}
	}
	return known, true
}

// stepUpstream carries out a step that concerns a server that speaks HTTP/1.
func (p *Proxy) stepUpstream(c *conn, s *replay.Step) error {
	if s.Kind == replay.Connect {
		return p.checkReplay() // the application connects when it likes
	}
	for _, x := range c.exchanges {
		upto := min(s.Upto, x.InTo)
		if upto <= x.InFrom || s.Kind == replay.Reset || x.Repeated {
			continue
		}
		x.allowed = max(x.allowed, upto)
		p.serve(x)
		taken := func() bool {
			return s.Kind != replay.Feed || x.leg.inConsumed >= upto+x.shift
		}
		if err := p.awaitUpstream(func() bool {
			return x.leg == nil && x.matters() || x.current() && !ended(x.leg) && (x.fed < upto || !taken())
		}); err != nil {
			return err
		}
	}
	if !s.Conn.AppEnded && (s.Kind == replay.Shut || s.Kind == replay.Reset) {
		p.endAnswer(c, s)
	}
	return p.checkReplay()
}

// endAnswer passes the end of a recorded connection on if an answer ends with it.
// One that rests may stay: the application might have taken it for a request by
// now.
func (p *Proxy) endAnswer(c *conn, s *replay.Step) {
	if len(c.exchanges) == 0 {
		return
	}
	x := c.exchanges[len(c.exchanges)-1]
	switch {
	case !x.current() || x.fed < x.InTo || len(x.leg.virtual.asked) > 0:
	case x.answered(x.recorded(p.rep.plan)) && !(c.session != nil && c.session.Over()):
	case s.Kind == replay.Shut:
		p.shutLeg(x.leg)
	default:
		p.destroy(x.leg, true)
	}
}

// serve delivers what may be delivered of an answer, or notes that it is due.
func (p *Proxy) serve(x *exchange) {
	if !x.current() {
		return
	}
	v, pc := x.leg, p.rep.plan.Conns[x.conn.id]
	for x.fed < x.allowed && !v.failed[legSide] {
		n := 0
		if !p.src.Serial() || p.turns.now == nil || p.turns.now == v {
			n = p.deliver(v, pc.Slice(x.fed, x.allowed))
		}
		x.fed += uint64(n)
		p.rep.fed += int64(n)
		if n == 0 {
			if !x.due {
				x.due = true
				p.rep.due = append(p.rep.due, x)
			}
			return
		}
	}
	p.ask(v)
}

// serveDue goes on with the answers that could not be delivered.
func (p *Proxy) serveDue() {
	list := p.rep.due
	p.rep.due = nil
	for _, x := range list {
		x.due = false
		p.serve(x)
	}
	probed := p.rep.probed
	p.rep.probed = nil
	for _, v := range probed {
		p.sayProbe(v)
	}
}

const (
	// aheadQuiet is how long nothing moves before answers are given out of turn.
	aheadQuiet = 10 * time.Millisecond
	// aheadOften is after how many of them an application that is seen to sleep is known
	// for that, and aheadSoon how long nothing moves then.
	aheadOften = 32
	aheadSoon  = time.Millisecond
	// askedQuiet is how long nothing moves before a request that has no record
	// ends the replay, while the record has one that is not made.
	askedQuiet = 300 * time.Millisecond
	// askedSteps is how many steps may be passed over meanwhile.
	askedSteps = 200
)

// awaitUpstream waits while a condition holds, for as long as the application
// shows that it goes on: a pool that is full may make a request wait for others
// that had come later. What the step would have delivered is delivered when the
// request comes.
func (p *Proxy) awaitUpstream(waiting func() bool) error {
	begun := time.Now()
	for i := 0; waiting(); i++ {
		var wait int64
		switch {
		case i >= 4*spinTurns/100:
			wait = 50
		case i%4 == 3:
			if !schedYield() {
				i = 4 * spinTurns / 100
			}
		}
		if err := p.turn(wait); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
		if now := time.Now(); now.Sub(begun) > p.stallLimit() || p.still(now, p.outOfTurn()) && !p.answerAhead() {
			if p.askedInVain() {
				p.rep.passed++
			}
			return nil
		}
	}
	return nil
}

// outOfTurn is how long nothing moves before an answer is given out of turn.
func (p *Proxy) outOfTurn() time.Duration {
	if p.opts.Idle != nil && p.rep.answered >= aheadOften {
		return aheadSoon
	}
	return aheadQuiet
}

// shaking is handshaking without the connections that have a leg and wait for the end
// of the replay.
func (p *Proxy) shaking() bool {
	n := p.egress.handshakes
	for _, c := range p.rep.detached {
		if c.detached && !c.gone {
			n--
		}
	}
	return n > 0
}

// still reports that nothing has moved for a while and the application sleeps.
func (p *Proxy) still(now time.Time, limit time.Duration) bool {
	q := &p.rep.quiet
	if now.Sub(q.looked) >= limit/4 {
		q.looked = now
		if at := p.position(); at != q.at || p.egress != nil && (p.egress.askers.busy() || p.shaking()) {
			q.at, q.since = at, now
		}
	}
	if now.Sub(q.since) < limit {
		return false
	}
	if now.Sub(q.asked) >= limit/4 {
		q.asked, q.asleep = now, p.opts.Idle == nil || p.opts.Idle()
	}
	return q.asleep
}

// answerAhead answers the earliest request whose answer is not due yet, and
// reports whether there is one.
func (p *Proxy) answerAhead() bool {
	var first *exchange
	for _, u := range p.rep.upstreams {
		for _, v := range u.legs {
			x := v.virtual.cur
			if !v.gone && x != nil && x.allowed < x.InTo && (first == nil || x.seq() < first.seq()) {
				first = x
			}
		}
	}
	if first == nil {
		return false
	}
	p.rep.quiet.since = time.Now()
	p.rep.answered++
	first.allowed = first.InTo
	p.serve(first)
	return true
}

// upstreamState says, for the reason of a replay that has failed, what servers and
// application wait for.
func (p *Proxy) upstreamState() (s string) {
	for dest, u := range p.rep.upstreams {
		legs, vain, waiting := 0, 0, 0
		for _, v := range u.legs {
			if v.gone {
				continue
			}
			legs++
			if p.inVain(v) {
				vain++
			}
			if x := v.virtual.cur; x != nil && x.fed < x.InTo {
				waiting++
			}
		}
		s += fmt.Sprintf("; %s: %d recorded requests not made, %d connections, of which %d wait for a recorded answer and %d have made a request without a record",
			dest, len(u.open), legs, waiting, vain)
	}
	return s
}
