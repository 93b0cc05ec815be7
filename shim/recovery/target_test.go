package recovery

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/status"
)

// estimates samples what a recovery would take, for a time.
func (b *bench) estimates(d time.Duration) (worst time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(7 * time.Millisecond) {
		var st status.Status
		b.describe(&st)
		worst = max(worst, ms(st.RecoveryTarget.EstimateMS))
	}
	return worst
}

// TestTarget: the estimate stays below the target at any time, and checkpoints
// are not made much more often than that takes.
func TestTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyTarget: "500ms"})
		b.rate = 2500 // a tenth of the speed of a replay
		var worst time.Duration
		b.run(t, 62*time.Second, func() {
			time.Sleep(2 * time.Second)
			worst = b.estimates(time.Minute)
		})
		require.Less(t, worst, 510*time.Millisecond)
		require.Greater(t, worst, 400*time.Millisecond)
		// A tail of 430 ms takes 4.3 s to grow.
		require.InDelta(t, 15, len(b.at), 2, "%v", b.at)
		require.Equal(t, firstCheckpoint, b.at[0])
		require.Equal(t, causeTarget, b.causes[1])
	})
}

func TestTargetOfAnIdleContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyTarget: "500ms"})
		b.run(t, time.Hour, nil)
		require.Equal(t, seconds(1), b.at)
	})
}

// TestTargetThatCostsTooMuch: the container is not stopped for more than a
// twentieth of the time, and the status says why the target is not kept.
func TestTargetThatCostsTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyTarget: "200ms"})
		b.rate, b.stall = 100_000, 40*time.Millisecond
		var st status.Status
		b.run(t, 61*time.Second, func() {
			time.Sleep(30*time.Second + 600*time.Millisecond)
			b.describe(&st)
		})
		stopped := time.Duration(len(b.at)) * b.stall
		require.Less(t, stopped, 65*time.Second/stallShare)
		require.Greater(t, stopped, 50*time.Second/stallShare)
		require.Contains(t, st.RecoveryTarget.Reason, "too much of the time")
		require.Greater(t, st.RecoveryTarget.EstimateMS, 200.0)
	})
}

// TestTargetOutOfReach: where a restore alone takes longer, a replay may take a
// tenth of it; checkpoints all the time would not help.
func TestTargetOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyTarget: "100ms"})
		b.rate, b.pages = 250, 500_000 // about 1 s
		var st status.Status
		b.run(t, 61*time.Second, func() {
			time.Sleep(30 * time.Second)
			b.describe(&st)
		})
		// A tail of 100 ms takes 10 s to grow.
		require.InDelta(t, 7, len(b.at), 2, "%v", b.at)
		require.Contains(t, st.RecoveryTarget.Reason, "a restore alone")
	})
}

// TestTargetLearns: slow replays make for more checkpoints.
func TestTargetLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyTarget: "500ms"})
		b.rate = 2500
		count := func(d time.Duration) int {
			b.mu.Lock()
			before := len(b.at)
			b.mu.Unlock()
			time.Sleep(d)
			b.mu.Lock()
			defer b.mu.Unlock()
			return len(b.at) - before
		}
		b.run(t, 10*time.Minute, func() {
			time.Sleep(2 * time.Second)
			early := count(time.Minute)
			for i := range 20 {
				time.Sleep(1500 * time.Millisecond)
				b.crashed()
				b.mu.Lock()
				last := uint64(len(b.at))
				b.mu.Unlock()
				// Four times as long as one would think.
				b.scheduler.mu.Lock()
				work := b.target.tail.work()
				b.scheduler.mu.Unlock()
				st := status.Recovery{RestoreMS: 80, ReplayMS: 4 * status.Milliseconds(work), Checkpoint: last, Attempts: 1}
				st.TotalMS = st.RestoreMS + st.ReplayMS
				b.recovered(&st, time.Now())
				if i > 10 {
					require.Greater(t, st.EstimateMS, st.TotalMS-1)
				}
			}
			late := count(time.Minute)
			require.Greater(t, late, 2*early)
			var st status.Status
			b.describe(&st)
			require.Equal(t, 20, st.RecoveryTarget.Recoveries)
			require.Greater(t, st.RecoveryTarget.Within, 10)
		})
	})
}

// TestTargetCountsEveryRecovery, but learns from the plain ones only.
func TestTargetCountsEveryRecovery(t *testing.T) {
	tg := newTarget(500 * time.Millisecond)
	last := &made{seq: 5, size: size{pages: 1000}}
	for _, st := range []status.Recovery{
		{TotalMS: 400, DetectMS: 101, Attempts: 1, Checkpoint: 5},
		{TotalMS: 400, DetectMS: 100, Attempts: 1, Checkpoint: 5},
		{TotalMS: 4000, Attempts: 2, Checkpoint: 5},
		{TotalMS: 4000, Attempts: 1, Checkpoint: 4},
		{TotalMS: 100, Attempts: 1, Checkpoint: 0},
	} {
		tg.recovered(&st, last)
	}
	require.Equal(t, 5, tg.recoveries)
	require.Equal(t, 2, tg.within)
	require.InDelta(t, 500/status.Milliseconds(last.size.work()), tg.restore.mean, 0.1)
}

// TestColdStartBeginsAnew: after a start from the beginning there is no
// checkpoint, so one is due.
func TestColdStartBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyTarget: "500ms"})
		b.run(t, 20*time.Second, func() {
			time.Sleep(10 * time.Second)
			b.crashed()
			b.recovered(&status.Recovery{Checkpoint: 0, Attempts: 3}, time.Now())
			b.poke()
		})
		require.Equal(t, seconds(1, 11), b.at)
	})
}

func TestPace(t *testing.T) {
	var p pace
	now := time.Now()
	require.True(t, p.next().IsZero(), "the first may come at once")
	p.note(now, 10*time.Millisecond, 50*time.Millisecond)
	require.Equal(t, now.Add(190*time.Millisecond), p.next(), "by the stall")
	p.note(now, 10*time.Millisecond, 450*time.Millisecond)
	require.Equal(t, now.Add(300*time.Millisecond), p.next(), "by the work: 150 ms on average")
}
