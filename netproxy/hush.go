package netproxy

import "time"

// hush keeps back what the application writes while a crash is not yet explained.
// A server of several processes notices the end of one before the kernel ends the
// others, and says so to its clients: PostgreSQL's "terminating connection due to
// unexpected postmaster exit". The count of crashes is there before anybody can
// notice, so output that was read under an old count knows of no crash.
type hush struct {
	on    bool
	since time.Time
	asked time.Time // when Dying was last asked
	// repeat: the application will be restored, and write again what lies beyond
	// the cut.
	repeat bool
}

// hushLimit bounds the wait for the shim to act on the death of the init. The
// kernel ends the other processes of its pid namespace first.
const hushLimit = 10 * time.Second

// hushed reports whether output must stay where it is. It costs a load from
// memory.
func (p *Proxy) hushed() bool {
	if p.hush.on {
		return true
	}
	n := p.src.Crashes()
	if n == p.crashes || p.draining || p.phase != live && p.phase != holding {
		return false
	}
	p.crashes = n
	if p.failed != nil || p.opts.Dying() == Alive {
		return false // it was in another container, or is dealt with
	}
	p.hush = hush{on: true, since: time.Now(), asked: time.Now()}
	p.firstSuspect.CompareAndSwap(0, p.hush.since.UnixNano())
	return true
}

// checkHush lets output go again when no process is dying any more, or when the
// init has outlived the crash.
func (p *Proxy) checkHush() {
	if !p.hush.on || time.Since(p.hush.asked) < askInterval {
		return
	}
	p.hush.asked = time.Now()
	p.crashes = p.src.Crashes() // before the question that explains them
	limit := p.opts.DyingFor
	switch p.opts.Dying() {
	case Alive:
		limit = 0
	case InitDying:
		limit = hushLimit
	}
	if time.Since(p.hush.since) >= limit {
		p.endHush()
	}
}

// endHush lets everything go that was kept back.
func (p *Proxy) endHush() {
	p.hush = hush{}
	if len(p.suspects) == 0 {
		p.firstSuspect.Store(0)
	}
	for _, c := range p.slots {
		if c != nil {
			p.activate(c)
		}
	}
}

// outputLate takes what was kept back, before anything else is read. It returns
// false if that has to wait.
func (p *Proxy) outputLate(c *conn) bool {
	for !c.late.empty() {
		if p.box.left() < readSize {
			if p.behind || p.stalled != nil {
				p.park(c)
			} else {
				p.activate(c)
			}
			return false
		}
		n := copy(p.box.arena[p.box.used:], c.late.bytes())
		data := p.box.arena[p.box.used : p.box.used+n]
		p.box.used += n
		c.late.advance(n)
		p.output(c, p.unlessRepeated(c, data))
	}
	return !c.gone
}

// unlessRepeated returns the part of the dead application's output that its
// restored self will not write again.
func (p *Proxy) unlessRepeated(c *conn, data []byte) []byte {
	if !p.hush.repeat || c.outPos+uint64(len(data)) <= c.floor {
		return data
	}
	return data[:max(c.floor, c.outPos)-c.outPos]
}
