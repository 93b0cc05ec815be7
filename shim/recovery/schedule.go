package recovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/shim/lifecycle"
)

const (
	// firstBackoff doubles with each failed checkpoint, up to maxBackoff.
	firstBackoff = time.Second
	maxBackoff   = time.Minute
	// busyAgain is when to try again what is not possible now: the container is
	// paused, or is being recovered.
	busyAgain = 250 * time.Millisecond
	// idle is how long the scheduler sleeps at most.
	idle = time.Hour
)

// The causes of checkpoints, as the status shows them. Input that can't be
// replayed and pressure bring their own.
const (
	causeInterval = "interval"
	causeCron     = "cron"
	causeJournal  = "journal"
	causeTarget   = "recovery target"
)

// scheduler decides when a container is checkpointed. One goroutine makes all
// its checkpoints, so that none overlaps another.
type scheduler struct {
	cfg   *config.Config
	slots *slots
	// checkpoint makes one, failed makes a failure known with the time until
	// the next attempt, journaled counts from the start of the container.
	checkpoint func(ctx context.Context, cause string) error
	failed     func(err error, again time.Duration)
	journaled  func() amount
	random     func() float64 // in [0, 1)

	asks chan *ask
	wake chan struct{} // something under mu may be due now
	done chan struct{} // closed when run has ended

	// Owned by run.
	interval  time.Time // when the clock asks for the next one; zero: never
	cron      time.Time // the next of the cron expression's times, with jitter
	backoff   time.Duration
	notBefore time.Time // what is due has to wait until then
	queued    time.Time // since when a slot is waited for; zero: it is not

	mu       sync.Mutex // guards everything below
	last     made       // the last complete checkpoint
	pace     pace
	inputs   inputs
	target   *target // nil: there is none
	pressure pressure
	press    string // pressure that asks for a checkpoint; empty: none
	stdin    bool   // standard input since the last checkpoint has been noted
}

// made is what the scheduler knows of a complete checkpoint. Its zero value is
// the start of the container.
type made struct {
	seq   uint64
	begun time.Time
	size  size
	at    moment
	mark  *lifecycle.StdioMark // may be nil
	// firstNew is the number of the first connection that it can't have.
	firstNew uint32
}

// moment is what the proxy had counted at the cut. What came between the two
// counts as being after it.
type moment struct {
	journaled amount
	accepted  uint64 // connections
}

func newScheduler(cfg *config.Config, checkpoint func(context.Context, string) error, failed func(error, time.Duration), journaled func() amount) *scheduler {
	s := &scheduler{
		checkpoint: checkpoint, failed: failed, journaled: journaled,
		cfg: cfg, pressure: pressure{limits: cfg.Pressure}, slots: newSlots(cfg.StateDir, cfg.MaxConcurrentDumps), random: rand.Float64,
		asks: make(chan *ask), wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if cfg.RecoveryTarget > 0 {
		s.target = newTarget(cfg.RecoveryTarget)
	}
	return s
}

// start says where standard input stands at the start of the container.
func (s *scheduler) start(mark *lifecycle.StdioMark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last.mark = mark
}

// run makes checkpoints until ctx ends.
func (s *scheduler) run(ctx context.Context) {
	defer close(s.done)
	s.begin(time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		next := s.next(now)
		timer.Reset(next.at.Sub(now))
		select {
		case <-ctx.Done():
			return
		case a := <-s.asks:
			s.answer(ctx, a)
			continue
		default:
		}
		if next.cause != "" && !next.at.After(now) {
			s.make(ctx, next.cause)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case a := <-s.asks:
			s.answer(ctx, a)
		case <-s.wake:
		case <-timer.C:
		}
	}
}

func (s *scheduler) begin(now time.Time) {
	s.mu.Lock()
	s.last.begun = now
	s.mu.Unlock()
	s.interval, s.cron = s.nextInterval(now), s.nextCron(now)
}

// due is when a checkpoint is to be made. Without a cause nothing is due then,
// but has to be looked at again.
type due struct {
	at    time.Time
	cause string
}

// next finds what comes first.
func (s *scheduler) next(now time.Time) due {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := due{at: now.Add(idle)}
	consider := func(at time.Time, cause string) {
		if at = later(at, s.notBefore); !at.IsZero() && at.Before(best.at) {
			best = due{at, cause}
		}
	}
	if s.grownLocked() {
		consider(now, causeJournal)
	}
	if !s.interval.IsZero() {
		consider(s.interval, causeInterval)
	}
	if !s.cron.IsZero() {
		consider(s.cron, causeCron)
	}
	// What may come often is slowed down to what it costs.
	paced := s.pace.next()
	if at, cause, urgent := s.inputs.due(); cause != "" {
		if !urgent {
			at = later(at, paced)
		}
		consider(at, cause)
	}
	if s.press != "" {
		consider(later(now, paced), s.press)
	}
	if s.target != nil {
		at, isDue := s.target.next(now, &s.last, s.journaled())
		s.target.slowed = isDue && paced.After(now)
		if isDue {
			consider(later(at, paced), causeTarget)
		} else {
			consider(at, "")
		}
	}
	return best
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// grownLocked: the tail is as long as the journal's triggers allow.
func (s *scheduler) grownLocked() bool {
	if s.cfg.JournalRecords == config.Off && s.cfg.JournalSize == config.Off {
		return false
	}
	tail := s.journaled().since(s.last.at.journaled)
	return s.cfg.JournalRecords > 0 && tail.records >= uint64(s.cfg.JournalRecords) ||
		s.cfg.JournalSize > 0 && tail.bytes >= uint64(s.cfg.JournalSize)
}

// make makes the checkpoint that is due, or puts it off.
func (s *scheduler) make(ctx context.Context, cause string) {
	now := time.Now()
	release, err := s.slots.try()
	switch {
	case errors.Is(err, errNoSlot):
		if s.queued.IsZero() {
			s.queued = now
		}
		if now.Sub(s.queued) < slotPatience {
			s.notBefore = now.Add(slotAgain)
			return
		}
		err = fmt.Errorf("%w for %s", err, slotPatience)
	case err == nil:
		defer release()
		err = s.checkpoint(ctx, cause)
	}
	s.queued = time.Time{}
	s.after(ctx, now, err)
}

// after draws the consequences of an attempt that began at the time begun.
func (s *scheduler) after(ctx context.Context, begun time.Time, err error) {
	now := time.Now()
	if !s.cron.After(now) {
		s.cron = s.nextCron(now)
	}
	switch {
	case err == nil:
		s.interval = s.nextInterval(begun)
		s.backoff, s.notBefore = 0, time.Time{}
		return
	case errors.Is(err, ErrBusy), errors.Is(err, criu.ErrDied), errors.Is(err, criu.ErrCanceled), ctx.Err() != nil:
		// The container is being recovered, stopped or paused.
		s.notBefore = now.Add(busyAgain)
		return
	}
	s.backoff = min(max(2*s.backoff, firstBackoff), maxBackoff)
	s.notBefore = now.Add(s.backoff)
	s.failed(err, s.backoff)
}

// nextInterval is a little earlier than asked for: the containers of a node,
// started together, must not be dumped together.
func (s *scheduler) nextInterval(from time.Time) time.Time {
	if s.cfg.Interval <= 0 {
		return time.Time{}
	}
	early := s.random() * s.cfg.CheckpointJitter * float64(s.cfg.Interval)
	return from.Add(s.cfg.Interval - time.Duration(early))
}

// maxCronDelay bounds the jitter of cron expressions: who names a time of day
// means it.
const maxCronDelay = 30 * time.Second

func (s *scheduler) nextCron(from time.Time) time.Time {
	at := s.cfg.Cron.Next(from)
	if at.IsZero() {
		return at
	}
	spread := maxCronDelay
	if after := s.cfg.Cron.Next(at); !after.IsZero() {
		spread = min(spread, time.Duration(s.cfg.CheckpointJitter*float64(after.Sub(at))))
	}
	return at.Add(time.Duration(s.random() * float64(spread)))
}

// completed is told of each checkpoint when it counts, before checkpoint
// returns. now is when it was complete.
func (s *scheduler) completed(m made, now time.Time, stalled time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = m
	s.press, s.stdin = "", false
	s.pace.note(now, stalled, now.Sub(m.begun))
	s.inputs.covered(m.begun)
	if s.target != nil {
		s.target.lead.learn(float64(now.Sub(m.begun)))
	}
}

// poke makes run look again at what is due. It does not block.
func (s *scheduler) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
