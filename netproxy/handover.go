package netproxy

import (
	"context"
	"fmt"
	"time"

	"github.com/crsc-io/crsc/journal"
)

// SwapJournal gives the proxy another journal while its application is dead:
// between Crash and the Rebuild for another container. fn is called on the loop
// with the present one, closes it and returns that which continues it. After an
// error nothing more is recorded, and no recovery is possible.
func (p *Proxy) SwapJournal(ctx context.Context, fn func(*journal.Journal) (*journal.Journal, error)) error {
	return p.do(ctx, "swap journal", func() error {
		if p.phase != crashed || p.rep != nil {
			return fmt.Errorf("%w: swap journal", ErrPhase)
		}
		if p.failed != nil {
			return p.failed
		}
		j, err := fn(p.opts.Journal)
		if err != nil {
			err = fmt.Errorf("netproxy: swap journal: %w", err)
			p.fault(err)
			return err
		}
		p.opts.Journal, p.committed = j, j.End()
		return nil
	})
}

// Renounce ends a recovery that has failed without ending the proxy: all
// connections are reset, the journal begins anew, and the proxy is live for an
// application that begins anew, too. No process of the old one may be left.
func (p *Proxy) Renounce(ctx context.Context) error {
	return p.do(ctx, "renounce", func() error {
		if p.phase != crashed && p.phase != replaying {
			return fmt.Errorf("%w: renounce", ErrPhase)
		}
		if p.egress != nil {
			p.crashEgress()
			clear(p.egress.repeats)
		}
		for _, c := range p.slots {
			if c != nil {
				p.destroy(c, true)
			}
		}
		if p.egress != nil {
			p.egress.past.forget() // numbers and records begin anew
		}
		if err := p.destroyLeftovers(); err != nil {
			return err
		}
		// As at the first start they are learned when somebody listens.
		dests, err := p.rules.Intercepted()
		if err == nil {
			err = p.rules.Forget(dests...)
		}
		if err != nil {
			return fmt.Errorf("netproxy: renounce: %w", err)
		}
		p.closeWaiting()
		p.resume()
		p.closes, p.suspects = p.closes[:0], nil
		p.inflight = 0
		p.turns.reset()
		if err := p.opts.Journal.Renew(); err != nil {
			return fmt.Errorf("netproxy: begin the journal anew: %w", err)
		}
		p.rep, p.failed, p.phase = nil, nil, live
		p.crashes, p.hush = p.src.Crashes(), hush{}
		p.armTrigger()
		p.down.Store(false)
		p.firstSuspect.Store(0)
		p.ghostsUntil, p.acceptDue = time.Time{}, true
		p.committed = p.opts.Journal.End()
		return nil
	})
}
