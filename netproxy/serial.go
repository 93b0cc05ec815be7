package netproxy

import (
	"errors"
	"slices"
	"time"

	"github.com/crsc-io/crsc/netproxy/order"
)

// turns is what the serial order source needs: one delivery at a time is in flight,
// and who has the turn gives it up when the application has taken it. An application
// may need something else first: the answer of a server, more of the same stream, a
// datagram. Then the turn passes on, and the delivery is recorded as taken when it
// is.
type turns struct {
	now   *conn // whose input is not yet consumed
	since time.Time
	wait  []*conn // want to deliver
	// passed had the turn, and have input that was not taken then.
	passed []*conn
	looked time.Time // at passed
	// overDatagrams: the turn has passed on from the datagrams in flight.
	overDatagrams bool
	asked         time.Time // when Idle was
	slept         bool      // what it said
}

const (
	// turnLimit is how long a turn lasts at most while others wait, and turnQuiet
	// how long if the application sleeps, as seen in two looks so far apart: what it
	// had been given would have woken it.
	turnLimit = 250 * time.Millisecond
	turnQuiet = 5 * time.Millisecond
	// lookShare is ten times what it takes to look at one of those that had the turn.
	lookShare = 20 * time.Microsecond
)

// reset forgets all deliveries.
func (t *turns) reset() { *t = turns{wait: t.wait[:0], passed: t.passed[:0]} }

// takeTurn notes that input of c was delivered.
func (p *Proxy) takeTurn(c *conn) {
	t := &p.turns
	if n := slices.Index(t.passed, c); n >= 0 {
		t.passed = slices.Delete(t.passed, n, n+1)
	}
	if t.now != nil && t.now != c {
		p.pass(false) // urgent, or out of turn in a replay
	}
	t.now = c
	t.begin()
}

func (t *turns) begin() { t.since, t.asked, t.slept = time.Now(), time.Time{}, false }

// pass ends the turn of a connection whose input was not taken. An application that
// was at work will take it before what follows; one that slept, after.
func (p *Proxy) pass(slept bool) {
	if c := p.turns.now; c != nil {
		c.overslept = slept
		p.turns.passed = append(p.turns.passed, c)
		p.turns.now = nil
	}
}

// replace puts c, which has taken v's leg over, in its place.
func (t *turns) replace(v, c *conn) {
	if t.now == v {
		t.now = c
	}
	if n := slices.Index(t.passed, v); n >= 0 {
		t.passed[n], c.overslept = c, v.overslept
	}
}

// turnTaken reports whether something is in flight for which the others wait.
func (p *Proxy) turnTaken() bool {
	return p.turns.now != nil || !p.turns.overDatagrams && p.datagramsInFlight()
}

// mustWait reports whether serial order forbids a delivery now, and queues the
// connection.
func (p *Proxy) mustWait(c *conn) bool {
	if !p.src.Serial() || p.failed != nil || !p.turnTaken() || c.urging() {
		return false
	}
	if !c.waiting {
		c.waiting = true
		p.turns.wait = append(p.turns.wait, c)
	}
	return true
}

// pollSerial looks whether the delivery in flight was consumed, and lets the next
// connection deliver.
func (p *Proxy) pollSerial() error {
	t := &p.turns
	datagrams := p.udp != nil && len(p.udp.waiting) > 0
	if t.now == nil && len(t.wait)+len(t.passed) == 0 && !datagrams {
		return nil
	}
	had := t.now
	if err := p.lookAtAll(); err != nil {
		return err
	}
	if p.turnTaken() && p.checkTurn() {
		p.pass(t.slept)
		t.overDatagrams = true
	}
	if p.turnTaken() || had != nil && datagrams {
		return nil // it is the datagrams' turn
	}
	p.nextTurn()
	return nil
}

// nextTurn lets those deliver that wait, until one of them has.
func (p *Proxy) nextTurn() {
	t := &p.turns
	for len(t.wait) > 0 && !p.turnTaken() {
		next := t.wait[0]
		t.wait = t.wait[1:]
		next.waiting = false
		if next.gone {
			continue
		}
		p.activate(next)
		if (p.phase == live || p.phase == replaying) && !next.in.empty() {
			p.flushInput(next)
		}
	}
}

// lookAtAll records what the application has taken, in the order in which it will
// have.
func (p *Proxy) lookAtAll() error {
	t := &p.turns
	passed := len(t.passed) > 0 && time.Since(t.looked) > time.Duration(len(t.passed))*lookShare
	if passed {
		t.looked = time.Now()
		if err := p.lookAtPassed(false); err != nil {
			return err
		}
	}
	if t.now != nil {
		done, err := p.lookAtTaken(t.now)
		if err != nil {
			return err
		}
		if done {
			t.now = nil
		}
	}
	if passed {
		return p.lookAtPassed(true)
	}
	return nil
}

// lookAtTaken records what the application has taken of c's input, and reports whether
// nothing of it is left to take.
func (p *Proxy) lookAtTaken(c *conn) (done bool, err error) {
	if c.gone || c.legFD < 0 || c.failed[legSide] {
		return true, nil
	}
	at, err := p.src.Consumed(order.Track{App: c.local(), Leg: c.peer(), Origin: c.origin})
	if errors.Is(err, order.ErrGone) {
		return true, nil // the application has closed it: it will take no more
	}
	if err != nil {
		return false, err
	}
	p.takenUpto(c, at)
	return c.settled(), nil
}

// lookAtPassed is lookAtTaken for those that had the turn, while the application
// slept or while it did not.
func (p *Proxy) lookAtPassed(slept bool) error {
	t := &p.turns
	kept := t.passed[:0]
	var failed error
	for _, c := range t.passed {
		done := false
		if c.overslept == slept && failed == nil {
			done, failed = p.lookAtTaken(c)
		}
		if !done {
			kept = append(kept, c)
		}
	}
	clear(t.passed[len(kept):])
	t.passed = kept
	return failed
}

// checkTurn reports whether the present turn is over: others wait for it, and the
// application does not take what it was given.
func (p *Proxy) checkTurn() bool {
	t := &p.turns
	if p.phase != live || len(t.wait) == 0 && (p.udp == nil || len(p.udp.waiting) == 0) {
		return false
	}
	now := time.Now()
	lasts := now.Sub(t.since)
	switch {
	case lasts > turnLimit:
		return true
	case p.opts.Idle == nil || lasts < turnQuiet || now.Sub(t.asked) < turnQuiet:
		return false
	}
	before := t.slept
	t.asked, t.slept = now, p.opts.Idle()
	return before && t.slept
}

// turnPace is how long the loop may sleep, in microseconds, while it waits for input to
// be taken. 0: it does not.
func (p *Proxy) turnPace() int64 {
	t := &p.turns
	switch {
	case t.now == nil && len(t.wait)+len(t.passed) == 0:
		return 0
	case t.now == nil && len(t.wait) == 0, time.Since(t.since) > turnLimit:
		return 1000
	}
	return 20
}
