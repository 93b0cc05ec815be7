package recovery

import (
	"context"
	"strings"
	"time"
)

// ask is a checkpoint on demand. Backing off after failures and the bounds on
// what checkpoints cost are no concern of it.
type ask struct {
	ctx   context.Context
	cause string
	err   chan error // has room for the answer
}

// now makes a checkpoint that begins after the call, and waits for it.
//
// Errors: the context's, also while a checkpoint under way goes on; ErrStopped
// when the scheduler has ended; those of checkpoint and slots.
func (s *scheduler) now(ctx context.Context, cause string) error {
	a := &ask{ctx: ctx, cause: cause, err: make(chan error, 1)}
	select {
	case s.asks <- a:
	case <-s.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-a.err:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		// run may have answered with its last breath.
		select {
		case err := <-a.err:
			return err
		default:
			return ErrStopped
		}
	}
}

// answer does what was asked for.
func (s *scheduler) answer(ctx context.Context, a *ask) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.ctx, cancel)()
	if a.ctx.Err() != nil {
		a.err <- a.ctx.Err()
		return
	}
	begun := time.Now()
	release, err := s.slots.take(ctx)
	if err == nil {
		err = s.checkpoint(ctx, a.cause)
		release()
	}
	s.after(ctx, begun, err)
	a.err <- err
}

// CheckpointNow makes a checkpoint that begins after the call and waits until
// it is complete. cause is shown in the status. When ctx ends earlier the
// checkpoint is given up; the container runs on in any case.
//
// Errors: ErrUnprotected with the reason; ErrBusy during a recovery or a pause
// and after a request to stop; ErrStopped; the context's; a failure is also
// shown in the status.
func (g *guard) CheckpointNow(ctx context.Context, cause string) error {
	g.mu.Lock()
	ready, reason := g.ready, g.status.Reason
	g.mu.Unlock()
	if !ready {
		return unprotected("%s", orElse(strings.TrimPrefix(reason, ErrUnprotected.Error()+": "), "the container does not run"))
	}
	return g.sched.now(ctx, cause)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
