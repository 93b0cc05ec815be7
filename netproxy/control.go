package netproxy

import (
	"context"
	"time"

	"github.com/crsc-io/crsc/journal"
)

// Mark writes a mark into the journal and commits it.
func (p *Proxy) Mark(ctx context.Context, kind journal.MarkKind, checkpoint uint64) error {
	return p.do(ctx, "mark", func() error {
		if p.failed != nil {
			return p.failed
		}
		p.opts.Journal.AppendMark(kind, checkpoint)
		return p.commit()
	})
}

// LoseJournal is for a journal that is written all right, but to where no recovery
// would look: the protection ends as with a fault that the proxy meets itself. After a
// crash it does nothing, since the recovery finds that out.
func (p *Proxy) LoseJournal(ctx context.Context, why error) error {
	return p.do(ctx, "lose the journal", func() error {
		if p.failed == nil && (p.phase == live || p.phase == holding) {
			p.fault(why)
		}
		return nil
	})
}

// SuspectedFor is how long before at the first leg had ended because of a dying
// application; 0 when no leg had.
func (p *Proxy) SuspectedFor(at time.Time) time.Duration {
	first := p.firstSuspect.Load()
	if first == 0 {
		return 0
	}
	return max(0, at.Sub(time.Unix(0, first)))
}

// armTrigger starts to count anew for OnTrigger. On the loop.
func (p *Proxy) armTrigger() {
	p.markRecords, p.markBytes = p.stats.inRecords.Load(), p.stats.inBytes.Load()
	p.triggered = false
}

// checkTrigger tells once that the journal has grown beyond what a replay
// should have to work off. On the loop.
func (p *Proxy) checkTrigger() {
	if p.triggered || p.phase != live {
		return
	}
	o := &p.opts
	records, bytes := p.stats.inRecords.Load()-p.markRecords, p.stats.inBytes.Load()-p.markBytes
	if o.TriggerRecords > 0 && records >= o.TriggerRecords || o.TriggerBytes > 0 && bytes >= o.TriggerBytes {
		p.triggered = true
		o.OnTrigger()
	}
}
