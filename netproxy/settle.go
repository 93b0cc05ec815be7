package netproxy

import "time"

// settleLimit bounds the wait for the last output of a replay. What follows the
// last input comes within a millisecond; an application that writes by a timer
// of its own is not waited for.
const settleLimit = 100 * time.Millisecond

// awaitOutputs waits, after the last step of a replay, until the application
// has written again what clients already have. Until then a divergence can
// still be answered by another way of recovery; later only by a reset.
func (p *Proxy) awaitOutputs() error {
	for deadline := time.Now().Add(settleLimit); p.owesOutput(); {
		if err := p.turn(1000); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return nil
		}
	}
	return p.checkReplay()
}

// awaitTail waits for input of the plan's end to be taken: the serial source
// follows one delivery at a time. The application may need something first that
// only comes after the replay; the input that follows then waits like live input.
func (p *Proxy) awaitTail(c *conn, consumed uint64) error {
	for deadline := time.Now().Add(settleLimit); c.inConsumed < consumed && !ended(c); {
		if err := p.turn(50); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return nil
		}
	}
	return p.checkReplay()
}

// owesOutput reports whether a living connection has output to swallow, or
// datagrams are to come again.
func (p *Proxy) owesOutput() bool {
	if p.udp != nil && len(p.udp.owed) > 0 {
		return true
	}
	for _, c := range p.slots {
		if c != nil && legOpen(c) && c.outPos < c.outRead {
			return true
		}
	}
	return false
}
