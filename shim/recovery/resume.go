package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/shim/lifecycle"
	"github.com/crsc-io/crsc/status"
)

// succession is the taking over of what the container before in the pod has left.
type succession struct {
	from  string // its ID
	at    time.Time
	row   int
	begun bool // the death of the created init has been told of
}

// begins reports, once, that the first death of an init is that of the created
// one. The caller holds the guard's mu.
func (s *succession) begins() bool {
	if s == nil || s.begun {
		return false
	}
	s.begun = true
	return true
}

// decline ends what was left by the container before: this one begins anew.
func (g *guard) decline(why error) {
	l := g.legacy
	g.legacy = nil
	if err := l.end(); err != nil {
		g.log.WithError(err).Warn("what the container before has left was not removed")
	}
	g.notResumed(why)
}

// takeOver makes connections, journal and checkpoints of the container before
// this one's. If they do not suit, it begins anew, and false is returned; an
// error means that it can't be protected.
func (g *guard) takeOver(ctx context.Context) (bool, error) {
	l := g.legacy
	if err := g.suited(l); err != nil {
		g.decline(err)
		return false, nil
	}
	if err := errors.Join(g.journal.Destroy(), os.RemoveAll(g.store.dir)); err != nil {
		return false, err
	}
	g.journal = nil
	was := l.dir
	if err := l.relocate(ctx, g.dir); err != nil {
		g.decline(err)
		return false, errors.Join(os.RemoveAll(g.store.dir), os.Mkdir(g.store.dir, 0o700), g.openJournal())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reset != nil {
		l.reset.Stop()
	}
	g.legacy = nil
	removeEmpty(was)
	if g.key = l.options.Key; g.key != nil {
		if err := writeSecret(g.dir, g.key); err != nil {
			return false, err
		}
	}
	g.journal, g.store.list = l.journal, l.list
	g.kept, l.kept = l.kept, nil
	g.seq, g.rise, g.fromStart, g.origin = l.seq, l.rise, l.fromStart, l.origin
	g.rise.seq = 0
	for _, cp := range l.list {
		w := l.written[cp.seq]
		cp.mark = g.c.ContinueStdio(w[0], w[1])
	}
	g.startMark = g.c.ContinueStdio(l.written[0][0], l.written[0][1])
	g.resumes = &succession{from: l.from.ID, at: time.Now(), row: l.row}
	if err := l.netns.Close(); err != nil {
		return false, err
	}
	if l.proxy != nil {
		g.proxy, g.tenant = l.proxy, l.tenant
		g.tenant.Store(g)
		return true, nil
	}
	if err := g.openProxy(); err != nil {
		return false, err
	}
	return true, g.proxy.Crash(ctx)
}

// suited compares what was left with the container that has been created.
func (g *guard) suited(l *estate) error {
	was, err := l.netns.Stat()
	if err != nil {
		return err
	}
	is, err := g.netns.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(was, is) {
		return fmt.Errorf("%w: it was in another network namespace", oci.ErrIncompatible)
	}
	l.list = slices.DeleteFunc(l.list, func(cp *checkpoint) bool {
		err := criu.Validate(cp.images())
		if err != nil {
			l.log.WithError(err).Warnf("checkpoint %d is of no use", cp.seq)
		}
		return err != nil
	})
	if len(l.list) == 0 {
		if !l.whole() {
			return ErrNoCheckpoint
		}
		return nil
	}
	spec, err := g.c.Spec()
	if err != nil {
		return err
	}
	before, err := specOfImage(l.from.Spec)
	if err != nil {
		return err
	}
	if err := sameMounts(before, spec); err != nil {
		return err
	}
	profiled := before.Linux != nil && before.Linux.Seccomp != nil
	admit := func(cp *checkpoint) error {
		contents, err := criu.ReadContents(cp.images(), maskedPaths(spec))
		if err != nil {
			return err
		}
		return errors.Join(confined(contents, spec), g.admit(cp, contents, profiled), g.checkAddresses(contents))
	}
	last := l.list[len(l.list)-1]
	if err := admit(last); err != nil {
		return err
	}
	l.list = slices.DeleteFunc(l.list, func(cp *checkpoint) bool {
		if cp == last {
			return false
		}
		err := admit(cp)
		if err != nil {
			l.log.WithError(err).Warnf("checkpoint %d is of no use", cp.seq)
		}
		return err != nil
	})
	return nil
}

// StartCrashed implements lifecycle.Guard.
func (g *guard) StartCrashed(*lifecycle.Container) bool {
	return g.resumes != nil && !g.unprotectedNow()
}

// resume recovers from what the container before has left. If nothing of it can
// be brought back to life, the program is run, and what was left is given up.
func (g *guard) resume(e lifecycle.Exit) {
	st := status.Recovery{Crashed: e.At, Cause: fmt.Sprintf("restart: container %s had exceeded its recovery budget", g.resumes.from)}
	g.phase("recovering")
	err := g.climb(e, &st)
	if err == nil {
		g.mu.Lock()
		g.status.RestoredFrom = fmt.Sprintf("the start of container %s", g.resumes.from)
		if st.Checkpoint != 0 {
			g.status.RestoredFrom = fmt.Sprintf("checkpoint %d of container %s", st.Checkpoint, g.resumes.from)
		}
		g.mu.Unlock()
		g.noteRecovery(&st)
		return
	}
	if g.ctx.Err() != nil || g.mustStop() || errors.Is(err, lifecycle.ErrKilled) {
		g.giveUp(e, err)
		return
	}
	g.notResumed(err)
	if err := g.beginAnew(); err != nil {
		g.giveUp(e, err)
		return
	}
	g.resumes.row = 0
	g.log.Warn("the program was run: what the container before had left is lost")
	g.phase("running")
	g.wantCheckpoint("restart")
}

// beginAnew runs the program, as a start without anything to resume would have.
func (g *guard) beginAnew() error {
	if err := g.awaitDown(); err != nil {
		return err
	}
	if err := g.rollback(rung{}); err != nil {
		return err
	}
	if err := g.proxy.Renounce(g.ctx); err != nil {
		return err
	}
	g.fromStart, g.origin, g.startMark = true, g.journal.Start(), g.c.MarkStdio()
	if err := g.c.Restore(g.ctx, lifecycle.RestoreRequest{Start: g.startFresh}); err != nil {
		return err
	}
	g.procs.follow(g.c.Pid())
	g.procs.look()
	g.mu.Lock()
	g.status.Pid = g.c.Pid()
	g.mu.Unlock()
	alive, err := g.finishRecovery(rung{})
	if err == nil && !alive {
		err = errors.New("the program has ended at once")
	}
	return err
}
