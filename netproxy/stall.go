package netproxy

import (
	"errors"
	"io/fs"
	"time"

	"github.com/crsc-io/crsc/journal"
)

// retryEvery is the time between attempts to write the journal while it stalls.
const retryEvery = 100 * time.Millisecond

// stall keeps a fault of the journal from ending the protection, where the
// options say so: nothing leaves and nothing more is taken in until the journal
// can be written again, so that clients wait. It returns the fault if there is
// no point in waiting.
func (p *Proxy) stall(err error) error {
	if !p.opts.HoldOnFault || errors.Is(err, fs.ErrNotExist) || errors.Is(err, journal.ErrBatchFull) {
		return err
	}
	p.retryAt = time.Now().Add(retryEvery)
	if p.stalled == nil {
		p.stalled = err
		p.opts.OnStall(err)
	}
	return nil
}

// retry looks, now and then, whether the fault has gone; true if it has.
func (p *Proxy) retry() (bool, error) {
	if time.Now().Before(p.retryAt) {
		return false, nil
	}
	if err := p.opts.Journal.Heal(); err != nil {
		return false, p.stall(err)
	}
	p.resume()
	return true, nil
}

// resume ends a stall.
func (p *Proxy) resume() {
	if p.stalled == nil {
		return
	}
	p.stalled = nil
	p.opts.OnStall(nil)
	p.unpark()
}

// unpark lets those go on that waited for the journal.
func (p *Proxy) unpark() {
	parked := p.parked
	p.parked = p.parked[:0]
	for _, c := range parked {
		c.parked = false
		p.activate(c)
	}
}

// stallOrFault is for errors outside of a round: the protection ends, unless the
// journal may stall.
func (p *Proxy) stallOrFault(err error) {
	if err = p.stall(err); err != nil {
		p.fault(err)
	}
}

// fullEvery is the least time between two calls of OnNearlyFull: room is made by
// the second checkpoint from now, if connections don't still need what is old.
const fullEvery = 2 * time.Second

// checkFull tells that the journal comes near its limit. On the loop.
func (p *Proxy) checkFull() {
	j := p.opts.Journal
	if p.failed != nil || p.phase != live || j.Since(j.Start()) < j.MaxBytes()/4*3 {
		return
	}
	if now := time.Now(); now.Sub(p.fullAt) > fullEvery {
		p.fullAt = now
		p.opts.OnNearlyFull()
	}
}
