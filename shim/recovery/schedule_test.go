package recovery

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/config"
)

// bench is a scheduler with a container that exists in figures only.
type bench struct {
	*scheduler
	start time.Time

	mu       sync.Mutex // guards everything below
	causes   []string
	at       []time.Duration // when checkpoints began, since the start
	failures []time.Duration // the backoffs that were announced
	fail     error           // what a checkpoint returns
	stall    time.Duration   // how long one stops the container
	took     time.Duration   // how long one takes
	rate     float64         // records a second that are journaled
	pages    uint64
	running  int
}

// newBench must be called within a bubble.
func newBench(t *testing.T, annotations map[string]string) *bench {
	t.Helper()
	node, err := config.Parse([]byte("checkpoint_jitter = 0.1\nmax_concurrent_dumps = 0\nstate_dir = \"" + t.TempDir() + "\""))
	require.NoError(t, err)
	ours := map[string]string{config.KeyInterval: "off", config.KeyJournalSize: "off", config.KeyJournalRecords: "off"}
	for k, v := range annotations {
		ours[k] = v
	}
	cfg, err := node.Container(ours)
	require.NoError(t, err)
	b := &bench{start: time.Now(), stall: 10 * time.Millisecond, took: 100 * time.Millisecond, pages: 1000}
	b.scheduler = newScheduler(cfg, b.makeOne, b.failedOne, b.grown)
	b.random = func() float64 { return 0 }
	return b
}

// run runs the scheduler for a time, with what happens meanwhile.
func (b *bench) run(t *testing.T, d time.Duration, meanwhile func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	go b.scheduler.run(ctx)
	if meanwhile != nil {
		meanwhile()
	}
	time.Sleep(d - time.Since(b.start))
	cancel()
	<-b.scheduler.done
}

func (b *bench) grown() amount {
	b.mu.Lock()
	defer b.mu.Unlock()
	return amount{records: uint64(b.rate * time.Since(b.start).Seconds())}
}

func (b *bench) makeOne(ctx context.Context, cause string) error {
	b.mu.Lock()
	b.running++
	overlaps := b.running > 1
	begun := time.Now()
	b.causes, b.at = append(b.causes, cause), append(b.at, begun.Sub(b.start))
	m := made{seq: uint64(len(b.at)), begun: begun, size: size{pages: b.pages}}
	b.mu.Unlock()
	if overlaps {
		panic("two checkpoints at a time")
	}
	m.at.journaled = b.grown()
	select {
	case <-time.After(b.took):
	case <-ctx.Done():
	}
	b.mu.Lock()
	b.running--
	err := b.fail
	b.mu.Unlock()
	if err = errors.Join(err, ctx.Err()); err == nil {
		b.completed(m, time.Now(), b.stall)
	}
	return err
}

func (b *bench) failedOne(_ error, again time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures = append(b.failures, again)
}

func (b *bench) setFail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

func seconds(v ...float64) []time.Duration {
	var out []time.Duration
	for _, s := range v {
		out = append(out, time.Duration(s*float64(time.Second)))
	}
	return out
}

func TestIntervalWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyInterval: "10s"})
		draws := []float64{0, 1, 0.5}
		b.random = func() float64 {
			r := draws[0]
			if len(draws) > 1 {
				draws = draws[1:]
			}
			return r
		}
		b.run(t, 29*time.Second, nil)
		require.Equal(t, seconds(10, 19, 28.5), b.at)
		require.Equal(t, causeInterval, b.causes[0])
	})
}

func TestIntervalCountsFromAnyCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyInterval: "10s"})
		b.run(t, 15*time.Second, func() {
			time.Sleep(4 * time.Second)
			require.NoError(t, b.now(context.Background(), "asked"))
		})
		require.Equal(t, seconds(4, 14), b.at)
		require.Equal(t, []string{"asked", causeInterval}, b.causes)
	})
}

func TestCron(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The bubble begins at midnight UTC, 2000-01-01.
		b := newBench(t, map[string]string{config.KeyCron: "CRON_TZ=UTC */5 * * * *"})
		b.random = func() float64 { return 1 }
		b.run(t, 16*time.Minute, nil)
		// A tenth of five minutes is 30 s.
		require.Equal(t, seconds(330, 630, 930), b.at)
		require.Equal(t, causeCron, b.causes[0])
	})
}

func TestFailuresBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyInterval: "10s"})
		b.took = 0
		b.setFail(errors.New("broken"))
		b.run(t, 205*time.Second, func() {
			time.Sleep(150 * time.Second)
			b.setFail(nil)
			time.Sleep(50 * time.Second)
			b.setFail(errors.New("broken again"))
		})
		require.Equal(t, seconds(1, 2, 4, 8, 16, 32, 60, 60, 1, 2), b.failures)
		// 10 s, and then the sums; after the success the interval again.
		require.Equal(t, seconds(10, 11, 13, 17, 25, 41, 73, 133, 193, 203, 204), b.at)
	})
}

func TestDemandDoesNotWaitForBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyInterval: "10s"})
		b.setFail(errors.New("broken"))
		b.run(t, 15*time.Second, func() {
			time.Sleep(10500 * time.Millisecond)
			require.ErrorContains(t, b.now(context.Background(), "asked"), "broken")
			b.setFail(nil)
			require.NoError(t, b.now(context.Background(), "asked"))
		})
		require.Equal(t, seconds(10, 10.5, 10.6), b.at, "and success ends the backoff")
		require.Equal(t, seconds(1, 2), b.failures)
	})
}

func TestBusyIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyInterval: "10s"})
		b.took = 0
		b.setFail(ErrBusy)
		b.run(t, 12*time.Second, func() {
			time.Sleep(11100 * time.Millisecond)
			b.setFail(nil)
		})
		require.Equal(t, seconds(10, 10.25, 10.5, 10.75, 11, 11.25), b.at)
		require.Empty(t, b.failures)
	})
}

func TestDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.run(t, 10*time.Second, func() {
			// Each gets a checkpoint that begins after it was asked for.
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { assert.NoError(t, b.now(context.Background(), "asked")) })
			}
			wg.Wait()
			require.Equal(t, 300*time.Millisecond, time.Since(b.start))

			b.took = time.Hour
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			begun := time.Now()
			require.ErrorIs(t, b.now(ctx, "asked"), context.DeadlineExceeded)
			require.Equal(t, 2*time.Second, time.Since(begun), "never longer than asked for")
			synctest.Wait()
			b.mu.Lock()
			require.Zero(t, b.running, "it is given up")
			b.mu.Unlock()
			b.took = 0
			require.NoError(t, b.now(context.Background(), "asked"))
		})
		require.Empty(t, b.failures)
		require.ErrorIs(t, b.now(context.Background(), "asked"), ErrStopped)
	})
}

func TestJournalTriggers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyJournalRecords: "1000"})
		b.took, b.rate = 0, 100
		b.run(t, 25*time.Second, func() {
			for range 100 { // as the proxy tells
				time.Sleep(250 * time.Millisecond)
				b.poke()
			}
		})
		require.Equal(t, seconds(10, 20), b.at)
		require.Equal(t, causeJournal, b.causes[0])
	})
}
