package recovery

import (
	"errors"
	"time"

	"github.com/crsc-io/crsc/criu"
)

const (
	// settleTime is waited for after input that can't be replayed, so that a
	// burst of it costs one checkpoint.
	settleTime = 200 * time.Millisecond
	// firstBackoff doubles with each failed checkpoint, up to maxBackoff.
	firstBackoff = time.Second
	maxBackoff   = time.Minute
)

// schedule makes checkpoints until the guard is closed: on the clock, on the
// growth of the journal, and soon after input that can't be replayed.
func (g *guard) schedule() {
	var interval <-chan time.Time
	if g.cfg.Interval > 0 {
		t := time.NewTicker(g.cfg.Interval)
		defer t.Stop()
		interval = t.C
	}
	var settle <-chan time.Time
	backoff := time.Duration(0)
	for {
		cause := ""
		select {
		case <-g.ctx.Done():
			return
		case <-interval:
			cause = "interval"
		case <-g.trigger:
			cause = "journal"
		case <-g.unreplayable:
			if settle == nil {
				settle = time.After(settleTime)
			}
			continue
		case <-settle:
			settle, cause = nil, "unreplayable input"
		}
		err := g.checkpoint(g.ctx, cause)
		switch {
		case err == nil:
			backoff = 0
			continue
		case errors.Is(err, ErrBusy) || errors.Is(err, criu.ErrDied) || errors.Is(err, criu.ErrCanceled) || g.ctx.Err() != nil:
			continue // the container is being recovered, stopped or paused
		}
		backoff = min(max(2*backoff, firstBackoff), maxBackoff)
		g.checkpointFailed(err, backoff)
		select {
		case <-g.ctx.Done():
			return
		case <-time.After(backoff):
		}
	}
}

// journalGrew is called on the proxy's loop.
func (g *guard) journalGrew() {
	select {
	case g.trigger <- struct{}{}:
	default:
	}
}

// wantCheckpoint asks for a checkpoint soon. It does not block.
func (g *guard) wantCheckpoint() {
	select {
	case g.unreplayable <- struct{}{}:
	default:
	}
}
