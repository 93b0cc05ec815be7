package netproxy

import "slices"

// setProbesAside takes the recorded questions of whether the server is there out of what
// the application must do again: whether a pool asks is a matter of the time of day.
func (u *upstream) setProbesAside() {
	aside := map[*exchange]bool{}
	for _, c := range u.conns {
		if c.session == nil || len(c.session.Probes()) == 0 {
			continue
		}
		list := c.exchanges[:0]
		for i, x := range c.exchanges {
			if i == 0 || !x.probes() {
				list = append(list, x)
				continue
			}
			aside[x] = true
			before := list[len(list)-1]
			if x.InTo == x.InFrom || x.last && !c.session.Resting() {
				list, before.probed = append(list, x), x // its answer is still to come
				continue
			}
			before.end, before.last = x.InTo, x.last
		}
		c.exchanges = list
	}
	u.open = slices.DeleteFunc(u.open, func(x *exchange) bool { return aside[x] })
}

// probes reports whether the request is a question of whether the server is there.
func (x *exchange) probes() bool {
	return x.before == x.after && !x.inside && len(x.Outputs) > 0 && !x.Repeated && x.isOneOf(x.conn.session.Probes())
}

// isOneOf reports whether the request is one of the texts.
func (x *exchange) isOneOf(texts [][]byte) bool {
	return slices.ContainsFunc(texts, func(text []byte) bool {
		return uint64(len(text)) == x.Length() && x.madeBy(text, len(text))
	})
}

// answerProbe answers, in the server's place, the question of whether it is there.
func (p *Proxy) answerProbe(v *conn, n int) {
	w := v.virtual
	x, s := w.cur, w.upstream.speaks
	if s == nil || x == nil || n != len(w.asked) || x.inside || !x.answered(x.recorded(p.rep.plan)) {
		return
	}
	if answer := s.Probe(w.asked); answer != nil {
		w.asked, w.said = nil, answer
		p.sayProbe(v)
	}
}

// sayProbe delivers the answer to a question of whether the server is there, or notes
// that it is due.
func (p *Proxy) sayProbe(v *conn) {
	w := v.virtual
	if w == nil || v.gone {
		return
	}
	if !p.src.Serial() || p.turns.now == nil || p.turns.now == v {
		w.said = w.said[p.deliver(v, w.said):]
	}
	if len(w.said) > 0 {
		p.rep.probed = append(p.rep.probed, v)
		return
	}
	p.ask(v)
}

// asksAgain returns the record of what the application asks, if that is whether the server
// is there, and it had been waiting for the answer on this very connection; else nil.
func (w *virtual) asksAgain(n int) *exchange {
	if w.cur == nil || w.cur.probed == nil || !w.cur.probed.madeBy(w.asked, n) {
		return nil
	}
	return w.cur.probed
}

// upto is the input offset up to which the application needs nothing of the record.
func (x *exchange) upto() uint64 {
	if x.fed == x.InTo {
		return x.end
	}
	return x.fed
}
