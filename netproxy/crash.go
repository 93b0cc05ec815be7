package netproxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/crsc-io/crsc/journal"
)

// ErrAborted is returned by Rebuild and Replay after Abort.
var ErrAborted = errors.New("netproxy: aborted")

// Crash is called when the container's init has died and is to be restored. It
// reads what the dead application had written before the last cut (those bytes
// are in neither an image nor the journal), records it and passes it on, and drops
// the legs: what it wrote after the cut it will write again, or was written because
// of the crash. Clients keep their connections, send until their windows are full, and
// new ones wait in the backlog. Crash may be called again when a recovery
// failed half-way.
func (p *Proxy) Crash(ctx context.Context) error {
	node := p.findNode()
	return p.do(ctx, "crash", func() error {
		p.node, p.acceptDue = node, true
		if p.failed != nil {
			return fmt.Errorf("netproxy: the journal had failed before the crash: %w", p.failed)
		}
		p.abort.Store(false)
		p.phase, p.rep = crashed, nil
		p.dropVirtual()
		p.down.Store(true)
		p.suspects = nil
		p.hush = hush{repeat: true}
		if err := p.drainLegs(); err != nil {
			p.fault(err)
			return err
		}
		if err := p.crashDatagrams(); err != nil {
			p.fault(err)
			return err
		}
		p.rawOutput, p.hush, p.crashes = false, hush{}, p.src.Crashes()
		for _, c := range p.slots {
			if c != nil {
				p.dropLeg(c)
			}
		}
		if p.egress != nil {
			p.crashEgress()
		}
		p.dropGhosts()
		p.inflight = 0
		p.turns.reset()
		p.opts.Journal.AppendMark(journal.RecoveryBegun, 0)
		return p.commit()
	})
}

// drainLegs reads every leg to its end. What a slow client can't take yet is
// kept; it is at most what the legs' receive buffers held.
func (p *Proxy) drainLegs() error {
	p.draining = true
	defer func() { p.draining = false }()
	for more := true; more; {
		for _, c := range p.slots {
			if c != nil && legOpen(c) && !c.unopened {
				c.readable[legSide] = true
				p.activate(c)
			}
		}
		if err := p.turn(0); err != nil {
			return err
		}
		more = false
		for _, c := range p.slots {
			more = more || c != nil && legOpen(c) && !c.unopened && c.readable[legSide]
		}
	}
	return nil
}

func legOpen(c *conn) bool {
	return c.legFD >= 0 && !c.connecting && !c.eof[legSide] && !c.failed[legSide]
}

// dropLeg closes the leg with a RST, which also ends what is left of the dead
// application's socket in the kernel, and forgets its state. What the client
// was already told (closing, shut) stays.
func (p *Proxy) dropLeg(c *conn) {
	if c.legFD >= 0 {
		closeReset(c.legFD)
		c.legFD = -1
	}
	c.connecting, c.suspect, c.inflight, c.waiting = false, false, false, false
	c.readable[legSide], c.hup[legSide], c.writable[legSide] = false, false, false
	c.shut[legSide] = false
	if !c.closing[legSide] {
		c.eof[legSide], c.failed[legSide] = false, false
	}
	c.asked = nil
	c.in.drop() // the journal has it
	c.late.drop()
}

// dropGhosts removes what an earlier replay had made for clients that are gone.
func (p *Proxy) dropGhosts() {
	for _, c := range p.slots {
		if c != nil && c.ghost() {
			p.destroy(c, true)
		}
	}
}
