package recovery

import (
	"context"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/shim/lifecycle"
)

// causeRequested is the cause of checkpoints that containerd asks for.
const causeRequested = "task checkpoint"

// Paused implements lifecycle.Guard.
func (g *guard) Paused(context.Context, *lifecycle.Container) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = true
}

// Resumed implements lifecycle.Guard.
func (g *guard) Resumed(context.Context, *lifecycle.Container) {
	g.mu.Lock()
	requested := g.requested
	g.paused, g.requested = false, false
	g.mu.Unlock()
	if requested && g.ctx.Err() == nil {
		g.work("requested checkpoint", func() { g.makeRequested(g.ctx) })
	}
}

// Checkpointing implements lifecycle.Guard. What containerd asks for becomes one of the
// schedule's checkpoints as well, from which the container can be recovered and which is
// published. containerd's client pauses the container around its request: ours is made
// when it runs again.
func (g *guard) Checkpointing(ctx context.Context, _ *lifecycle.Container) bool {
	g.mu.Lock()
	ready := g.ready
	g.requested = ready && g.paused
	requested := g.requested
	g.mu.Unlock()
	if ready && !requested {
		g.makeRequested(ctx)
	}
	return ready && g.cfg.Intercept != config.InterceptOff
}

func (g *guard) makeRequested(ctx context.Context) {
	if err := g.CheckpointNow(ctx, causeRequested); err != nil {
		g.log.WithError(err).Warn("containerd asked for a checkpoint, which one of the container's own could not follow")
	}
}
