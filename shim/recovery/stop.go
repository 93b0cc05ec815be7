package recovery

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/config"
)

const (
	// stopCause begins the cause of a checkpoint before a stop.
	stopCause = "stop "
	// deliveryTime is how long after the announcement of a signal a checkpoint
	// is sure to have its effect.
	deliveryTime = 300 * time.Millisecond
	// farewellTime bounds how long the image of the checkpoint before a stop may
	// delay the removal of the container.
	farewellTime = 5 * time.Second
)

// beforeSignal does what has to be done before the orchestrator's signal is
// delivered to the init. It delays the signal by at most checkpoint-on-stop's limit.
func (g *guard) beforeSignal(ctx context.Context, sig syscall.Signal) {
	stop := slices.Contains(stopRequests, sig)
	switch {
	case sig == syscall.SIGKILL:
		g.farewell.stop()
	case stop && (g.cfg.OnStop > 0 || g.cfg.AcrossPods):
		g.checkpointBeforeStop(ctx, sig)
	case !stop && sig != 0:
		now := time.Now()
		g.noteInput(input{at: now, until: now.Add(deliveryTime), what: "signal " + unix.SignalName(sig), counts: g.cfg.Unreplayable.Signal})
	}
}

// checkpointBeforeStop makes the last checkpoint of a container that is to
// stop. One that is not protected, or can't be checkpointed now, stops at once.
func (g *guard) checkpointBeforeStop(ctx context.Context, sig syscall.Signal) {
	g.mu.Lock()
	possible := g.ready && !g.recovering && !g.paused && !g.stopping()
	g.mu.Unlock()
	if !possible {
		return
	}
	limit := g.cfg.OnStop
	if limit == 0 {
		limit = config.StopLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	g.farewell.do(ctx, func(ctx context.Context) {
		if err := g.CheckpointNow(ctx, fmt.Sprintf(stopCause+"(%s)", unix.SignalName(sig))); err != nil {
			g.log.WithError(err).Warnf("no checkpoint before %v", unix.SignalName(sig))
			return
		}
		g.farewell.made.Store(true)
	})
}

// publishFarewell waits until the checkpoint before the stop has its image: the
// container's state is about to be removed.
func (g *guard) publishFarewell(ctx context.Context) {
	if !g.farewell.made.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, farewellTime)
	defer cancel()
	if err := g.images.flush(ctx); err != nil {
		g.log.WithError(err).Warn("the checkpoint before the stop was not published")
	}
}

// farewell is the checkpoint before a stop. Several requests to stop share it.
type farewell struct {
	mu     sync.Mutex    // guards over and cancel
	over   chan struct{} // closed when the one under way has ended; nil: none is
	cancel context.CancelFunc
	// made: there is such a checkpoint.
	made atomic.Bool
}

// do makes the checkpoint, or waits for the one under way, until ctx ends.
func (f *farewell) do(ctx context.Context, checkpoint func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	if over := f.over; over != nil {
		f.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
		}
		return
	}
	f.over, f.cancel = make(chan struct{}), cancel
	f.mu.Unlock()
	checkpoint(ctx)
	f.mu.Lock()
	close(f.over)
	f.over, f.cancel = nil, nil
	f.mu.Unlock()
}

// stop gives up the one under way.
func (f *farewell) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cancel != nil {
		f.cancel()
	}
}
