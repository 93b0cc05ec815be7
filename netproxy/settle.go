package netproxy

import (
	"errors"
	"time"
)

const (
	// settleLimit is how long a replay waits for output that clients have while
	// nothing moves and the application may be at work.
	settleLimit = 2 * time.Second
	// idleLimit is the same while every thread of the application sleeps: what it
	// writes by a timer of its own is not waited for.
	idleLimit = 100 * time.Millisecond
)

// awaitOutputs waits, after the last step of a replay, until the application
// has written again what clients and servers already have. Until then a
// divergence can still be answered by another way of recovery; later only by a
// reset.
func (p *Proxy) awaitOutputs() error {
	for {
		if err := p.settleWhile(func() bool { return p.owesOutput() || p.owesUpstream() }); err != nil || p.egress == nil {
			return err
		}
		if !p.askedInVain() {
			return errors.Join(p.checkHeld(true), p.checkReplay())
		}
		p.rep.passed = askedSteps + 1
		if err := p.checkReplay(); err != nil {
			return err
		}
	}
}

// awaitTail waits for input of the plan's end to be taken: the serial source
// follows one delivery at a time. The application may need something first that
// only comes after the replay; the input that follows then waits like live input.
func (p *Proxy) awaitTail(c *conn, consumed uint64) error {
	return p.settleWhile(func() bool { return c.inConsumed < consumed && !ended(c) })
}

// settleWhile waits while a condition holds, for as long as the application
// shows that it goes on.
func (p *Proxy) settleWhile(waiting func() bool) error {
	now := time.Now()
	p.rep.since = now
	quiet, busy, at := now, now, p.position()
	for waiting() {
		if err := p.turn(1000); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
		now = time.Now()
		if now.Sub(p.rep.since) > StallAfter {
			return nil
		}
		if to := p.position(); to != at || p.opening() {
			quiet, busy, at = now, now, to
			continue
		}
		if now.Sub(quiet) > settleLimit {
			return nil
		}
		if now.Sub(busy) > idleLimit {
			if p.opts.Idle != nil && p.opts.Idle() {
				return nil
			}
			busy = now
		}
	}
	return p.checkReplay()
}

// position is a number that changes when anything moves.
func (p *Proxy) position() uint64 {
	var sum uint64
	for _, c := range p.slots {
		if c != nil {
			sum += c.outPos + c.inConsumed + c.inSent
		}
	}
	return sum
}

// opening reports whether the application waits for a connection that nobody
// has decided about. checkStray bounds that.
func (p *Proxy) opening() bool {
	return p.egress != nil && (len(p.egress.syns) > 0 || p.egress.askers.busy())
}

// owesOutput reports whether a living connection has output to swallow, or
// datagrams are to come again.
func (p *Proxy) owesOutput() bool {
	if p.udp != nil && len(p.udp.owed) > 0 {
		return true
	}
	for _, c := range p.slots {
		if c != nil && c.outPos < c.outRead && !c.diverged && (legOpen(c) || c.connected && c.unopened) {
			return true
		}
	}
	return false
}
