package recovery

import (
	"time"

	"github.com/crsc-io/crsc/status"
)

const (
	// firstCheckpoint is how long after the start a container with a recovery
	// target has its first: until then nobody knows what a recovery takes.
	firstCheckpoint = time.Second
	// Between two looks at the tail.
	minLook, maxLook = 5 * time.Millisecond, 250 * time.Millisecond
	// leastReplay is the part of the restore's time that a replay may take in
	// any case: a target that a restore alone exceeds is not met by checkpoints
	// all the time.
	leastReplay = 0.1
	// firstReplay is taken for the time of a replay of next to nothing.
	firstReplay = 5 * time.Millisecond
	// shortReplay: what less work takes says nothing about the speed.
	shortReplay = 10 * time.Millisecond
)

// target asks for checkpoints just often enough for recoveries to take no
// longer than wanted. A recovery takes
//
//	restore.high · size.work() + base.high + speed.high · tail.work()
//
// where the factors are learned from the container's own recoveries.
type target struct {
	want time.Duration

	restore average // measured / worked out
	base    average // replay of next to nothing, nanoseconds
	speed   average // measured / worked out
	lead    average // duration of a checkpoint, nanoseconds: until then the old tail counts
	growth  average // work that is journaled in a second, nanoseconds

	looked time.Time
	seen   amount
	slowed bool // a checkpoint is due that would cost too much
	// At the last crash: what a recovery was expected to take, and the tail.
	estimate time.Duration
	tail     amount
	// How many recoveries there were, and how many took no longer than wanted.
	recoveries, within int
}

func newTarget(want time.Duration) *target { return &target{want: want} }

func (t *target) restoreTime(s size) time.Duration {
	return time.Duration(t.restore.high(1) * float64(s.work()))
}

func (t *target) replayTime(work time.Duration) time.Duration {
	return time.Duration(t.base.high(float64(firstReplay)) + t.speed.high(1)*float64(work))
}

// total is how long a recovery would take.
func (t *target) total(last *made, now amount) time.Duration {
	return t.restoreTime(last.size) + t.replayTime(now.since(last.at.journaled).work())
}

// budget is what a replay may take.
func (t *target) budget(s size) time.Duration {
	restore := t.restoreTime(s)
	least := time.Duration(leastReplay*float64(restore)) + t.replayTime(0)
	return max(t.want-restore, least)
}

// next says that a checkpoint is due at a time, or when to look again.
func (t *target) next(now time.Time, last *made, journaled amount) (at time.Time, isDue bool) {
	if last.seq == 0 {
		return last.begun.Add(firstCheckpoint), true
	}
	t.look(now, journaled)
	growth := t.growth.mean
	work := float64(journaled.since(last.at.journaled).work()) + growth*t.lead.mean/float64(time.Second)
	left := t.budget(last.size) - t.replayTime(time.Duration(work))
	if left <= 0 && journaled.since(last.at.journaled) != (amount{}) {
		return now, true
	}
	wait := maxLook
	if growth > 0 {
		wait = time.Duration(float64(left) / (growth * t.speed.high(1)) * float64(time.Second) / 2)
	}
	return now.Add(min(max(wait, minLook), maxLook)), false
}

// look measures how fast the tail grows.
func (t *target) look(now time.Time, journaled amount) {
	took := now.Sub(t.looked)
	if !t.looked.IsZero() {
		if took < minLook {
			return
		}
		t.growth.learn(float64(journaled.since(t.seen).work()) / took.Seconds())
	}
	t.looked, t.seen = now, journaled
}

// crashed keeps what a recovery is expected to take.
func (t *target) crashed(last *made, journaled amount) {
	t.estimate, t.tail = t.total(last, journaled), journaled.since(last.at.journaled)
}

// recovered learns from a recovery, and completes what the status says of it.
// One that did not succeed at once from the last checkpoint counts, but teaches
// nothing.
func (t *target) recovered(st *status.Recovery, last *made) {
	took := ms(st.DetectMS + st.TotalMS)
	t.recoveries++
	if took <= t.want {
		t.within++
	}
	if st.Attempts != 1 || st.Checkpoint == 0 || st.Checkpoint != last.seq {
		return
	}
	st.EstimateMS = status.Milliseconds(t.estimate)
	replay := ms(st.ReplayMS + st.PlanMS) // both grow with the tail
	t.restore.learn(float64(took-replay) / float64(last.size.work()))
	work := t.tail.work()
	if work < shortReplay {
		t.base.learn(float64(replay))
		return
	}
	base := float64(firstReplay)
	if t.base.known {
		base = t.base.mean
	}
	t.speed.learn(max(float64(replay)-base, 0) / float64(work))
}

func ms(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }

// status is what an operator sees of it.
func (t *target) status(last *made, journaled amount) *status.RecoveryTarget {
	st := &status.RecoveryTarget{
		TargetMS: status.Milliseconds(t.want), Recoveries: t.recoveries, Within: t.within,
	}
	if last.seq == 0 {
		st.Reason = "there is no checkpoint yet"
		return st
	}
	restore := t.restoreTime(last.size)
	st.RestoreMS = status.Milliseconds(restore)
	st.EstimateMS = status.Milliseconds(t.total(last, journaled))
	switch {
	case restore+t.replayTime(0) > t.want:
		st.Reason = "a restore alone takes longer"
	case t.slowed:
		st.Reason = "checkpoints as often as needed would stop the container for too much of the time"
	}
	return st
}
