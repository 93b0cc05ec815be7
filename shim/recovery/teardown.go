package recovery

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

// gone ends the clients' connections after an exit that is not recovered, unless
// the next container in the pod is to have them.
func (g *guard) gone() {
	if !g.leaves() {
		if err := g.proxy.Close(); err != nil {
			g.log.WithError(err).Warn("close proxy")
		}
	}
	g.mu.Lock()
	g.ready, g.status.Phase, g.status.Protected = false, "stopped", false
	g.mu.Unlock()
	g.writeStatus()
	g.givenBack.Do(g.giveMemoryBack)
}

// giveMemoryBack moves the checkpoints of a container that has ended to disk.
// Until it is deleted they may be wanted, but not at that price.
func (g *guard) giveMemoryBack() {
	if g.awaitDump() != nil || g.store.memory == nil {
		return // it is being deleted
	}
	g.disarm()
	defer func() {
		if err := g.store.memory.spare.drop(); err != nil {
			g.log.WithError(err).Warn("memory of removed checkpoints is not given back")
		}
	}()
	for _, c := range g.store.list {
		if err := g.store.toDisk(g.ctx, c); err != nil {
			if g.ctx.Err() == nil {
				g.log.WithError(err).Warn("a checkpoint of the ended container stays in memory")
			}
			return
		}
	}
}

// Deleted implements lifecycle.Guard: the container's state goes with it.
func (g *guard) Deleted(ctx context.Context, _ *lifecycle.Container) error {
	g.publishFarewell(ctx)
	err := g.close()
	g.bequeath()
	g.deposit(ctx)
	return errors.Join(err, g.clearState(), os.RemoveAll(g.dir))
}

// Close implements lifecycle.Guard.
func (g *guard) Close() error {
	err := g.close()
	g.mu.Lock()
	l := g.left
	g.left = nil
	g.mu.Unlock()
	if l == nil {
		return err
	}
	g.proxy, g.journal, g.netns, g.kept = nil, nil, nil, nil
	return errors.Join(err, l.end())
}

func (g *guard) close() error {
	g.mu.Lock()
	g.ready = false
	if g.cancelDump != nil {
		g.cancelDump(ErrStopped)
	}
	g.mu.Unlock()
	g.cancel()
	g.mu.Lock()
	server := g.control
	g.mu.Unlock()
	return errors.Join(server.Close(), g.dismantle())
}

// dismantle releases what protection consists of. It may be called again.
func (g *guard) dismantle() error {
	var errs []error
	leaves := g.leaves()
	if g.proxy != nil && !leaves {
		errs = append(errs, g.proxy.Close())
	}
	g.wg.Wait()
	g.disarm()
	if g.journal != nil && !leaves {
		if err := g.journal.Close(); !g.isBlind() {
			errs = append(errs, err) // otherwise the status has said it
		}
		g.journal = nil
	}
	if g.legacy != nil {
		errs = append(errs, g.legacy.end())
		g.legacy = nil
	}
	if g.store != nil && g.store.memory != nil {
		errs = append(errs, g.store.memory.spare.drop())
	}
	errs = append(errs, destroySecret(g.dir), removeMemory(g.memoryDir()))
	if g.kept != nil && !leaves {
		errs = append(errs, g.kept.Close())
		g.kept = nil
	}
	if g.pins != nil {
		errs = append(errs, g.pins.Close())
		g.pins = nil
	}
	if g.netns != nil && !leaves {
		errs = append(errs, g.netns.Close())
		g.netns = nil
	}
	return errors.Join(errs...)
}

// killInit ends a restored init that must not go on.
func (g *guard) killInit() error {
	if err := unix.Kill(g.c.Pid(), unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}
