package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/shim/lifecycle"

	"github.com/crsc-io/crsc/status"
)

// holdLimit is how long input is held back for the application to consume what
// it was given. Single requests take microseconds; an application that is busy
// for longer is checkpointed in the middle.
const holdLimit = 20 * time.Millisecond

// keepCheckpoints is how many complete checkpoints stay: the last, and the one
// before for the case that the last does not restore.
const keepCheckpoints = 2

// mergeEvery is how many checkpoints apart the copies of the files are merged,
// which goes with syncing them, where the durability class does not ask for it.
const mergeEvery = 32

// checkpoint makes one checkpoint. The container runs on, whatever happens.
//
// Errors: ErrBusy when this is not the moment; anything else is a failure.
func (g *guard) checkpoint(ctx context.Context, cause string) error {
	ctx, done, err := g.beginCheckpoint(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := g.capturing.pending(); err != nil {
		return err
	}
	start := time.Now()
	cp, err := g.store.stage(g.seq + 1)
	if err != nil {
		return err
	}
	g.seq++
	info := status.Checkpoint{Sequence: cp.seq, Cause: cause, Time: start}
	if err = g.place(cp, &info); err == nil {
		err = g.dump(ctx, cp, &info)
	}
	if errors.Is(err, errDiskSilent) {
		cp.mark.Release()
		return err // the rest is done when the disk answers
	}
	if ctx.Err() == nil && (passing(err) || g.overflowed(cp, err)) {
		err = g.dumpAgain(ctx, cp, &info, err)
	}
	cp.unreserve()
	if err != nil {
		cp.mark.Release()
		return errors.Join(err, g.store.discard(cp))
	}
	if err := g.finish(ctx, cp, &info); err != nil {
		cp.mark.Release()
		return errors.Join(err, g.store.discard(cp), g.proxy.Release(context.WithoutCancel(ctx)))
	}
	info.TotalMS, cp.info = status.Milliseconds(time.Since(start)), &info
	g.scheduleFrom(cp, &info)
	g.rearm(ctx, cp)
	g.regain(cp)
	g.noteCheckpoint(&info, cp.cut.Foreign)
	g.images.offer(cp)
	return nil
}

// dumpAgain makes another attempt: a process came or went while CRIU looked, and
// won't the next time; or there was too little memory for the images.
func (g *guard) dumpAgain(ctx context.Context, cp *checkpoint, info *status.Checkpoint, why error) error {
	overflowed := g.overflowed(cp, why)
	cp.mark.Release()
	cp.mark = nil
	if err := g.store.restage(cp); err != nil {
		return err
	}
	if overflowed {
		info.Place, info.PlaceReason = placeDisk, "it was larger than expected: "+errNoMemory.Error()
	} else if err := g.place(cp, info); err != nil {
		return err
	}
	return g.dump(ctx, cp, info)
}

// passing reports whether a dump failed for a reason that is gone at the next
// attempt: a process, such as an exec, ended while CRIU read its files.
func passing(err error) bool {
	var e *criu.Error
	// soccr: a send queue was acknowledged between its measuring and its reading.
	if !errors.As(err, &e) || errors.Is(err, criu.ErrStuck) {
		return false
	}
	return errors.Is(err, unix.ESRCH) || strings.Contains(e.Line, "soccr/soccr.c") ||
		strings.Contains(e.Line, "No such file or directory") || strings.Contains(e.Line, "No such process")
}

// regain ends the time without protection after a fault of the journal:
// everything before this checkpoint is useless, the checkpoint itself is whole.
func (g *guard) regain(cp *checkpoint) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.blind || cp.unjournaled {
		return
	}
	g.fromStart = false
	if _, err := g.store.prune(1); err != nil {
		g.log.WithError(err).Warn("old checkpoints were not removed")
	}
	g.blind, g.status.Protected, g.status.Reason = false, true, ""
	g.log.WithField("checkpoint", cp.seq).Info("protected again")
}

// beginCheckpoint takes the turn of the container; done gives it back.
func (g *guard) beginCheckpoint(ctx context.Context) (context.Context, func(), error) {
	g.mu.Lock()
	why := g.busyLocked()
	if why == "" && g.stopping() {
		why = "it was asked to stop"
	}
	g.mu.Unlock()
	if why != "" {
		return nil, nil, fmt.Errorf("%w: %s", ErrBusy, why)
	}
	release, err := g.c.Exclusive(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	if why := g.busyLocked(); why != "" || g.c.Phase() != lifecycle.PhaseRunning {
		cancel(nil)
		release()
		return nil, nil, fmt.Errorf("%w: %s", ErrBusy, cmp.Or(why, "it does not run"))
	}
	g.dumping = make(chan struct{})
	g.cancelDump = cancel
	over := g.dumping
	return ctx, func() {
		cancel(nil)
		release()
		g.mu.Lock()
		g.cancelDump = nil
		g.mu.Unlock()
		close(over)
	}, nil
}

// busyLocked says why this is not the moment for a checkpoint; "": it is.
func (g *guard) busyLocked() string {
	switch {
	case !g.ready:
		return "it is not protected"
	case g.recovering:
		return "it is being recovered"
	case g.paused:
		return "it is paused"
	}
	return ""
}

// dump writes the images, the trees and the table of connections.
func (g *guard) dump(ctx context.Context, cp *checkpoint, info *status.Checkpoint) (err error) {
	if err := g.neighbours.sharing(); err != nil {
		if errors.Is(err, ErrUnprotected) {
			g.suspend(err)
		}
		return err
	}
	prev := ""
	if last := g.store.last(); last != nil {
		prev = last.dir
	} else {
		prev = g.genesis()
	}
	ds, err := g.files.prepare(cp.dir, prev)
	if err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, errDiskSilent) {
			return // somebody works with them
		}
		if err := ds.discard(); err != nil { // does nothing after a capture
			g.log.WithError(err).Warn("discard a capture")
		}
	}()
	release := func() error { return nil }
	stats, err := criu.Dump(ctx, criu.DumpOptions{
		Path: g.criuPath, Root: g.c.Runc().Root, ID: g.c.ID(), Pins: g.pins, Images: cp.images(),
		GhostLimit: uint32(g.cfg.DeletedMaxSize), Kerndat: g.kerndatFile(), Start: startUnderReaper, Urgent: info.Place == placeMemory, LetSleep: g.cfg.LetProcessorsSleep, PreDump: g.preDumps(),
		Reserve: g.reserves(info), Previous: g.previousImages(), ReserveMax: g.needs(), Patience: dumpLimit(g.needs()),
		OnPreDump: func() error {
			res, err := g.proxy.Hold(ctx, holdLimit)
			info.HeldMS, info.Quiet = status.Milliseconds(res.Took), res.Quiet
			return err
		},
		OnFrozen: func() error { return g.capture(ctx, cp, ds) },
		OnPostDump: func() error {
			cp.moment = g.moment()
			t, err := g.proxy.Cut(ctx, cp.seq)
			if err != nil {
				return err
			}
			cp.cut = Cut{Version: cutVersion, Table: t}
			cp.mark = g.c.MarkStdio()
			if g.isLast(info) {
				return nil
			}
			// From here on input is behind the cut: it may flow while CRIU lets
			// the tasks go.
			release = inBackground(func() error { return g.proxy.Release(ctx) })
			return nil
		},
	})
	err = errors.Join(err, release())
	info.FrozenMS, info.CutMS, info.Pages = status.Milliseconds(stats.Stall()), status.Milliseconds(stats.PostDump), stats.Pages
	info.PreDumps, info.LongestMS = len(stats.Rounds), status.Milliseconds(stats.LongestStall())
	if stats.PreDumpError != nil {
		g.log.WithError(stats.PreDumpError).Warn("all memory was copied while the container was frozen")
	}
	if err == nil && g.isLast(info) {
		return nil // whoever resumes must not miss what is answered from here on
	}
	// Does nothing unless the dump failed between the hooks.
	if rerr := g.proxy.Release(context.WithoutCancel(ctx)); rerr != nil {
		err = errors.Join(err, rerr)
	}
	return err
}

// capture copies the trees of the frozen container, and gives up if that takes too long.
func (g *guard) capture(ctx context.Context, cp *checkpoint, ds drafts) error {
	return g.capturing.within(ctx, dumpLimit(g.cfg.VolumeMaxSize), g.wg.Go,
		func(ctx context.Context) error { return g.files.capture(ctx, ds) },
		func() {
			cp.unreserve()
			if err := errors.Join(ds.discard(), g.store.discard(cp)); err != nil {
				g.log.WithError(err).Warn("discard a capture that was given up")
			}
			g.log.WithField("checkpoint", cp.seq).Info("the disk of a checkpoint that was given up answers again")
		})
}

// finish reads the images, commits the checkpoint and frees what only older
// ones needed. The container runs.
func (g *guard) finish(ctx context.Context, cp *checkpoint, info *status.Checkpoint) error {
	sockets, err := criu.TCPSockets(cp.images())
	if err != nil {
		return fmt.Errorf("read the images: %w", err)
	}
	if err := criu.ForgetSizes(cp.images(), g.safeVolumes); err != nil {
		return fmt.Errorf("files on safe volumes: %w", err)
	}
	cp.cut.Sockets = match(cp.cut.Table, sockets)
	cp.cut.Foreign = foreign(cp.cut.Table, sockets)
	info.Connections = len(cp.cut.Sockets)
	if g.store.sync || g.isLast(info) {
		if err := g.store.toDisk(ctx, cp); err != nil {
			return err
		}
	}
	if g.store.sync || cp.seq%mergeEvery == 0 {
		if err := g.files.sync(cp.dir); err != nil {
			return err
		}
	}
	if err := g.store.commit(cp); err != nil {
		return err
	}
	// From here on the checkpoint counts, also if a crash has come meanwhile.
	// What can't be tidied up now is tried again after the next one.
	err = g.proxy.Mark(context.WithoutCancel(ctx), journal.CheckpointComplete, cp.seq)
	cp.unjournaled = err != nil
	from, perr := g.store.prune(keepCheckpoints)
	if err = errors.Join(err, perr); err == nil && len(g.store.list) == keepCheckpoints {
		err = g.journal.TrimBefore(from)
	}
	if err != nil {
		g.log.WithError(err).Warn("old checkpoints or journal segments were not removed")
	}
	if err := g.store.makeRoom(ctx, g.needs()); err != nil && ctx.Err() == nil {
		g.log.WithError(err).Warn("no room is made in memory for the next checkpoint")
	}
	return nil
}

// inBackground starts fn. The returned function waits for its result; it is to
// be called once.
func inBackground(fn func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return func() error { return <-done }
}
