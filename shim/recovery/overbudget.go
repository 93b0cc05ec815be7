package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/shim/lifecycle"
	"github.com/crsc-io/crsc/status"
)

// estatesDir is where estates wait: <state_dir>/<namespace>/<sandbox>/estates. It
// goes with the sandbox.
const estatesDir = "estates"

// describeLimit bounds the question to containerd about the image.
const describeLimit = 5 * time.Second

// sandboxID is the CRI's annotation that names the pod's sandbox.
const sandboxID = "io.kubernetes.cri.sandbox-id"

// placeOf names the place of a container in its pod; empty: it is in none.
func placeOf(c *lifecycle.Container) string {
	sandbox, pod := c.Annotations()[sandboxID], status.PodOf(c.Annotations())
	if sandbox == "" || pod == nil {
		return ""
	}
	sum := sha256.Sum256([]byte(sandbox + "\x00" + pod.Container))
	return hex.EncodeToString(sum[:16])
}

// leaves reports whether the next container in the pod is to go on with the
// connections.
func (g *guard) leaves() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left != nil
}

// leaveEstate keeps what the next container in the pod needs to go on where this
// one has crashed too often. Without it that one begins anew.
func (g *guard) leaveEstate(e lifecycle.Exit) {
	if g.seat == "" || g.cfg.OverBudget != config.OverBudgetResume {
		return
	}
	l, err := g.estate(e)
	if err != nil {
		g.log.WithError(err).Warn("the next container in the pod will begin anew")
		g.factory.refuse(g.seat, err)
		return
	}
	g.mu.Lock()
	g.left = l
	g.mu.Unlock()
}

func (g *guard) estate(e lifecycle.Exit) (*estate, error) {
	row := 1
	if r := g.resumes; r != nil && time.Since(r.at) < g.cfg.Budget.Window {
		row = r.row + 1
	}
	if row > 1 && g.rise.short(e) {
		return nil, fmt.Errorf("%w: resumed, it died again within %v", ErrBudget, stillborn)
	}
	if row > maxInRow {
		return nil, fmt.Errorf("%w by %d containers in a row that had resumed", ErrBudget, maxInRow)
	}
	if len(g.store.list) == 0 && !g.reachesStart() {
		return nil, ErrNoCheckpoint
	}
	ctx, cancel := context.WithTimeout(g.ctx, describeLimit)
	defer cancel()
	if err := g.proxy.Crash(ctx); err != nil {
		return nil, err
	}
	from, err := g.describe(ctx)
	if err != nil {
		return nil, err
	}
	from.Time = time.Now()
	return &estate{
		from: from, log: g.log, row: row, rise: g.rise, seq: g.seq, fromStart: g.fromStart, origin: g.origin,
		options: g.journalOptions(g.dir), netns: g.netns, kept: g.kept,
		dir: g.dir, tenant: g.tenant, journal: g.journal, proxy: g.proxy,
	}, nil
}

// deposit hands the estate over to the factory. The container is gone.
func (g *guard) deposit(ctx context.Context) {
	g.mu.Lock()
	l := g.left
	g.left = nil
	g.mu.Unlock()
	if l == nil {
		return
	}
	g.proxy, g.journal, g.netns, g.kept = nil, nil, nil, nil
	l.tenant.Store(nil)
	err := g.putAway(context.WithoutCancel(ctx), l)
	if err == nil {
		err = g.factory.put(g.seat, l)
	}
	if err == nil {
		g.log.WithField("checkpoints", len(l.list)).Info("left to the next container in the pod")
		return
	}
	g.log.WithError(errors.Join(err, l.end())).Warn("the next container in the pod will begin anew")
	g.factory.refuse(g.seat, err)
}

// putAway moves the estate out of the container's state, which is to be removed.
func (g *guard) putAway(ctx context.Context, l *estate) error {
	// What has stayed in memory has gone with it.
	l.list = slices.DeleteFunc(g.store.list, func(cp *checkpoint) bool { return cp.inMemory.Load() != nil })
	if len(l.list) == 0 && !l.whole() {
		return ErrNoCheckpoint
	}
	l.written = map[uint64][2]lifecycle.Swallow{}
	note := func(seq uint64, m *lifecycle.StdioMark) {
		if m != nil {
			out, err := m.Since()
			l.written[seq] = [2]lifecycle.Swallow{out, err}
		}
	}
	note(0, g.startMark)
	for _, cp := range l.list {
		note(cp.seq, cp.mark)
		cp.mark = nil
	}
	pod, err := stateDir(g.cfg.StateDir, g.c.Namespace(), g.c.Annotations()[sandboxID])
	if err != nil {
		return err
	}
	dir := filepath.Join(pod, estatesDir, g.seat)
	if err := errors.Join(os.RemoveAll(dir), mkdirPrivate(dir)); err != nil {
		return err
	}
	return l.relocate(ctx, dir)
}

// put keeps an estate until somebody takes it, or the factory is closed.
func (f *Factory) put(place string, l *estate) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrStopped
	}
	old := f.estates[place]
	f.estates[place] = l
	l.keepConnections(connectionsKept)
	return old.end()
}

// refuse notes why there is no estate.
func (f *Factory) refuse(place string, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused[place] = why
}

// take returns what was left at a place, or why nothing was; nil if nothing
// could have been.
func (f *Factory) take(place string) (*estate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, why := f.estates[place], f.refused[place]
	delete(f.estates, place)
	delete(f.refused, place)
	return l, why
}

// Close ends what nobody has taken.
func (f *Factory) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	var errs []error
	for place, l := range f.estates {
		errs = append(errs, l.end())
		delete(f.estates, place)
	}
	return errors.Join(errs...)
}
