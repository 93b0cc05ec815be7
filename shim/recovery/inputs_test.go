package recovery

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/status"
)

func (b *bench) noteNow(what string) { b.note(input{at: time.Now(), what: what, counts: true}) }

func TestABurstCostsOneCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.run(t, 10*time.Second, func() {
			for range 100 {
				b.noteNow("exec")
				time.Sleep(time.Millisecond)
			}
			var st status.Status
			b.describe(&st)
			require.Equal(t, b.start, *st.UnreplayableSince)
			require.Equal(t, "exec", st.Unreplayable)
		})
		require.Equal(t, seconds(0.2), b.at)
		require.Equal(t, []string{"exec"}, b.causes)
		var st status.Status
		b.describe(&st)
		require.Nil(t, st.UnreplayableSince)
	})
}

// TestProbes: an exec every second is answered less and less often, at least
// every ten seconds; what comes after a quiet time is answered at once.
func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.run(t, 200*time.Second, func() {
			for range 100 {
				b.noteNow("exec")
				time.Sleep(time.Second)
			}
			time.Sleep(50 * time.Second)
			b.noteNow("signal HUP")
			time.Sleep(time.Second)
			b.noteNow("signal HUP")
		})
		var gaps []time.Duration
		for i := 1; i < len(b.at); i++ {
			gaps = append(gaps, b.at[i]-b.at[i-1])
		}
		require.LessOrEqual(t, len(b.at), 18, "%v", b.at)
		for _, g := range gaps[:len(gaps)-2] {
			require.LessOrEqual(t, g, maxSpacing+time.Second, "%v", b.at)
		}
		require.Equal(t, 200*time.Millisecond, b.at[0])
		require.Equal(t, 150*time.Second+settleTime, b.at[len(b.at)-2])
		require.Equal(t, 151*time.Second+settleTime, b.at[len(b.at)-1], "the distances begin small again")
		require.Equal(t, "signal HUP", b.causes[len(b.causes)-1])
	})
}

func TestUrgentIsNotSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.stall, b.took = 100*time.Millisecond, 0
		b.run(t, 5*time.Second, func() {
			for range 3 {
				b.note(input{at: time.Now(), what: "recovery", counts: true, urgent: true, replayable: true})
				var st status.Status
				b.describe(&st)
				require.Nil(t, st.UnreplayableSince, "a recovery is no input")
				time.Sleep(time.Second)
			}
		})
		require.Equal(t, seconds(0.2, 1.2, 2.2), b.at)
	})
}

// TestInputDuringACheckpoint: the checkpoint may lack it.
func TestInputDuringACheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		var late time.Time
		b.run(t, 10*time.Second, func() {
			b.noteNow("exec")
			time.Sleep(250 * time.Millisecond)
			late = time.Now()
			b.noteNow("standard input")
			time.Sleep(100 * time.Millisecond)
			var st status.Status
			b.describe(&st)
			require.Equal(t, late, *st.UnreplayableSince)
			require.Equal(t, "standard input", st.Unreplayable)
		})
		require.Equal(t, []string{"exec", "standard input"}, b.causes)
	})
}

// TestSignalIsCoveredOnceDelivered: it is announced before it is delivered.
func TestSignalIsCoveredOnceDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyInterval: "1s"})
		b.took = 0
		b.run(t, 1900*time.Millisecond, func() {
			time.Sleep(900 * time.Millisecond)
			now := time.Now()
			b.note(input{at: now, until: now.Add(deliveryTime), what: "signal HUP", counts: true})
		})
		require.Equal(t, seconds(1, 1.2), b.at)
	})
}

// TestInputsThatDoNotCount are told, and trigger nothing.
func TestInputsThatDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.run(t, 10*time.Second, func() {
			for range 2 * maxInputs {
				b.note(input{at: time.Now(), what: "exec"})
			}
			b.execs(1)
		})
		require.Empty(t, b.at)
		require.Len(t, b.inputs.list, maxInputs)
		var st status.Status
		b.describe(&st)
		require.Equal(t, "exec", st.Unreplayable)
		b.completed(made{seq: 1, begun: b.start.Add(time.Second)}, b.start.Add(2*time.Second), 0)
		b.describe(&st)
		require.Equal(t, "an exec session is open", st.Unreplayable)
		require.Equal(t, b.start.Add(time.Second), *st.UnreplayableSince)
		b.execs(0)
		b.describe(&st)
		require.Nil(t, st.UnreplayableSince)
	})
}

func TestNewcomers(t *testing.T) {
	var n newcomers
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	require.False(t, n.seen(now, []uint32{1, 2}))
	require.False(t, n.seen(at(lasting-1), []uint32{1, 3}))
	require.True(t, n.seen(at(lasting), []uint32{1, 3}))
	require.False(t, n.seen(at(lasting+1), []uint32{1, 2, 3}), "each once, and 2 is another look at it")
	require.True(t, n.seen(at(2*lasting), []uint32{1, 2, 3}))
	require.True(t, n.seen(at(3*lasting), []uint32{2}))
	require.Len(t, n.since, 1)
}
