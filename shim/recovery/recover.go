package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/netproxy"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
	"github.com/crsc-io/crsc/shim/lifecycle"
	"github.com/crsc-io/crsc/status"
)

// downLimit bounds the wait for a container's processes to be gone.
const downLimit = 5 * time.Second

// recover brings the container back in a way, which reports the exit if it can't.
// So does recover if the way comes to grief itself.
func (g *guard) recover(e lifecycle.Exit, way func(lifecycle.Exit)) {
	over := false
	defer func() {
		if !over {
			g.giveUp(e, errors.New("internal error"))
		}
	}()
	way(e)
	over = true
}

// hide hides a crash, or reports the exit.
func (g *guard) hide(e lifecycle.Exit) {
	st := status.Recovery{Crashed: e.At, Cause: cause(e), DetectMS: status.Milliseconds(g.proxy.SuspectedFor(e.At))}
	g.phase("recovering")
	g.rise.crashed(e)
	err := g.awaitDump()
	if err == nil {
		err = g.budget.take(time.Now())
	}
	if err == nil {
		err = g.climb(e, &st)
	}
	if err != nil {
		g.giveUp(e, err)
		return
	}
	g.noteRecovery(&st)
}

func cause(e lifecycle.Exit) string {
	switch {
	case e.OOM:
		return "out of memory"
	case e.Status > 128:
		return fmt.Sprintf("signal %d", e.Status-128)
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

// awaitDump waits until the checkpoint that the crash interrupted has ended.
func (g *guard) awaitDump() error {
	g.mu.Lock()
	over := g.dumping
	g.mu.Unlock()
	if over == nil {
		return nil
	}
	select {
	case <-over:
		return nil
	case <-g.ctx.Done():
		return ErrStopped
	}
}

// climb tries one way after the other.
func (g *guard) climb(e lifecycle.Exit, st *status.Recovery) error {
	ways := g.ladder()
	if len(ways) == 0 {
		return ErrNoCheckpoint
	}
	var errs []error
	diverged := false
	for i := 0; i < len(ways); i++ {
		w := ways[i]
		if w.tolerate && !diverged || w.answers && !(g.haveAnswers && (diverged || g.byAnswers)) {
			continue // it would fail in the same way again
		}
		st.Attempts++
		begun := time.Now()
		g.forgetDeath()
		err := g.attempt(w, st)
		if err == nil {
			done, derr := g.finishRecovery(w)
			if derr != nil {
				return derr
			}
			if done {
				g.byAnswers, g.late = w.answers, w.late
				st.TotalMS = status.Milliseconds(time.Since(e.At))
				return nil
			}
			err = ErrDiedAgain
		}
		err = g.tellDeath(err)
		errs = append(errs, fmt.Errorf("%s: %w", w, err))
		if g.ctx.Err() != nil || errors.Is(err, lifecycle.ErrKilled) || g.mustStop() {
			return errors.Join(append(errs, ErrStopped)...)
		}
		if next, ok := w.again(err); ok && time.Since(e.At) < lateFor {
			ways = slices.Insert(ways, i+1, next)
		}
		diverged = diverged || errors.Is(err, netproxy.ErrDiverged) || errors.Is(err, netproxy.ErrStalled)
		g.log.WithError(err).WithField("took", time.Since(begun)).Warnf("recovery from %s failed; %d ways left", w, len(ways)-i-1)
		if derr := g.bringDown(); derr != nil {
			return errors.Join(append(errs, derr)...)
		}
	}
	return errors.Join(errs...)
}

func (g *guard) forgetDeath() {
	g.mu.Lock()
	g.died = nil
	g.mu.Unlock()
}

// tellDeath says how the restored init ended, if that is why an attempt did.
func (g *guard) tellDeath(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.died == nil || g.stopping():
		return err
	case errors.Is(err, ErrDiedAgain):
		return fmt.Errorf("%w: %s", err, cause(*g.died))
	case errors.Is(err, netproxy.ErrAborted):
		return fmt.Errorf("%w: %s, before the replay was over: %w", ErrDiedAgain, cause(*g.died), err)
	}
	return err
}

func (g *guard) mustStop() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stopping()
}

// finishRecovery ends the recovery unless the restored init is dead already.
func (g *guard) finishRecovery(w rung) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.exits:
		return false, nil
	default:
	}
	if g.ctx.Err() != nil {
		return false, ErrStopped
	}
	g.rise.from(w, time.Now()) // before the next crash can be told of
	g.recovering = false
	return true, nil
}

// bringDown makes sure that nothing of a failed attempt runs.
func (g *guard) bringDown() error {
	if g.c.Phase() != lifecycle.PhaseRunning {
		g.drainExits()
		return nil
	}
	if err := g.killInit(); err != nil {
		return fmt.Errorf("end a failed recovery: %w", err)
	}
	select {
	case <-g.exits:
		return nil
	case <-g.ctx.Done():
		return ErrStopped
	case <-time.After(downLimit):
		return errors.New("end a failed recovery: the init does not die")
	}
}

func (g *guard) drainExits() {
	for {
		select {
		case <-g.exits:
		default:
			return
		}
	}
}

// attempt recovers in one way. After an error the container may be running.
func (g *guard) attempt(w rung, st *status.Recovery) error {
	begun := time.Now()
	lap := func(into *float64) {
		now := time.Now()
		*into = status.Milliseconds(now.Sub(begun))
		begun = now
	}
	ctx := g.ctx
	start := time.Now()
	ready := g.takeArmed(w.from)
	defer func() {
		if ready != nil { // not used
			g.armed = ready
			g.disarm()
		}
	}()
	if err := g.proxy.Crash(ctx); err != nil {
		return err
	}
	if err := g.awaitDown(); err != nil {
		return err
	}
	if ready != nil {
		join := ready.criu
		joined := make(chan struct{})
		go func() {
			defer close(joined)
			_ = join.Join() // Restore reports it
		}()
		defer func() { <-joined }()
	}
	lap(&st.DrainMS)
	plan, peers, err := g.plan(w)
	if err != nil {
		return err
	}
	lap(&st.PlanMS)
	if err := g.rollback(w); err != nil {
		return err
	}
	lap(&st.RollbackMS)
	if err := g.proxy.Rebuild(ctx, plan, peers); err != nil {
		return err
	}
	lap(&st.LegsMS)
	fire := ready
	ready = nil
	if err := g.restore(w, fire); err != nil {
		return err
	}
	lap(&st.CRIUMS)
	st.RestoreMS = status.Milliseconds(time.Since(start))
	res, err := g.proxy.Replay(ctx, w.tolerate)
	if err != nil {
		return err
	}
	st.ReplayMS = status.Milliseconds(res.Took)
	st.Steps, st.SlowestMS, st.SlowestStep = res.Steps, status.Milliseconds(res.Slowest), res.SlowestStep
	st.Records, st.Bytes, st.Connections = plan.Records, res.Bytes, len(plan.Conns)
	st.SwallowedBytes, st.Differing, st.Reset = res.Swallowed, res.Differing, res.Reset
	if w.from != nil {
		st.Checkpoint = w.from.seq
	}
	return nil
}

// plan reads the tail.
func (g *guard) plan(w rung) (*replay.Plan, map[uint32]tcprepair.Peer, error) {
	from := g.journal.Start()
	var table *replay.Table
	var offsets map[uint32]replay.Socket
	var peers map[uint32]tcprepair.Peer
	if w.from != nil {
		table, from = w.from.cut.Table, w.from.cut.Table.ScanFrom
		var err error
		if offsets, peers, err = w.from.cut.positions(); err != nil {
			return nil, nil, err
		}
	}
	r, err := g.journal.NewReader(from)
	if err != nil {
		return nil, nil, fmt.Errorf("read the journal: %w", err)
	}
	defer r.Close()
	plan, err := replay.Build(r, table, offsets)
	if err != nil {
		return nil, nil, err
	}
	if g.haveAnswers = plan.HasAnswers(); w.answers {
		if !g.haveAnswers {
			return nil, nil, errNoAnswers
		}
		plan.ByAnswers()
	}
	if w.late {
		plan.PutOff(w.last)
	}
	return plan, peers, nil
}

// errNoAnswers is returned for a way that only suits servers.
var errNoAnswers = errors.New("the application has connections or datagrams of its own, whose order is not that of answers")

// awaitDown waits until no process of the dead container is left: their files
// and sockets would be in the way. The kernel kills them with the init of
// their PID namespace.
func (g *guard) awaitDown() error {
	deadline := time.Now().Add(downLimit)
	for {
		left, err := os.ReadFile(g.procs.procs)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil // systemd removes the cgroups of the dead
		}
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %q of the dead container do not end", left)
		}
		time.Sleep(200 * time.Microsecond)
	}
}

func (g *guard) rollback(w rung) error {
	if err := g.neighbours.sharing(); err != nil {
		return err
	}
	if w.from == nil {
		return g.files.rollback(g.ctx, g.genesis(), nil)
	}
	return g.files.rollback(g.ctx, w.from.dir, nil)
}

// restore makes the container's processes, with what stands ready for it or
// without.
func (g *guard) restore(w rung, ready *armed) error {
	req := lifecycle.RestoreRequest{Start: g.startFresh, Mark: g.startMark}
	if w.from != nil {
		// The dead application's would be in the way of the restored ones.
		if _, err := g.resetForeign(w.from); err != nil {
			return err
		}
		req.Mark = w.from.mark
		req.Start = func(ctx context.Context, stdio *lifecycle.Stdio) (int, error) {
			ctx, cancel := limitRestore(ctx, w.from)
			defer cancel()
			pid, _, err := criu.Restore(ctx, g.restoreOptions(w.from, stdio))
			return pid, err
		}
	}
	if ready != nil {
		req.Stdio = ready.stdio
		req.Start = g.fire(w.from, ready)
	}
	if err := g.c.Restore(g.ctx, req); err != nil {
		return err
	}
	g.procs.follow(g.c.Pid())
	g.procs.look()
	if w.from == nil {
		return nil
	}
	n, err := g.resetForeign(w.from)
	if n > 0 {
		g.log.WithField("connections", n).Warn("connections that do not go through the proxy could not be kept, and were reset")
	}
	return err
}

// resetForeign ends the connections that do not go through the proxy, and counts
// them.
func (g *guard) resetForeign(cp *checkpoint) (int, error) {
	return redirect.DestroySockets(int(g.netns.Fd()), redirect.Match{Tuples: cp.cut.Foreign})
}

// fire uses the armed restore, and does the whole work if it fails.
func (g *guard) fire(cp *checkpoint, ready *armed) func(context.Context, *lifecycle.Stdio) (int, error) {
	return func(ctx context.Context, stdio *lifecycle.Stdio) (int, error) {
		ctx, cancel := limitRestore(ctx, cp)
		defer cancel()
		pid, _, err := ready.criu.Restore(ctx)
		if err == nil {
			return pid, nil
		}
		g.log.WithError(err).Warn("armed restore failed; restoring from scratch")
		pid, _, err2 := criu.Restore(ctx, g.restoreOptions(cp, stdio))
		if err2 != nil {
			return 0, errors.Join(err, err2)
		}
		return pid, nil
	}
}

// giveUp reports the exit as it was.
func (g *guard) giveUp(e lifecycle.Exit, err error) {
	_ = g.bringDown() // what can't be brought down is reported by the exit all the same
	g.disarm()
	if g.mustStop() {
		g.log.WithError(err).Info("the recovery was ended by the request to stop")
	} else {
		g.noteFailure(e, err)
		if errors.Is(err, ErrBudget) {
			g.leaveEstate(e)
		}
	}
	g.gone()
	g.mu.Lock()
	g.recovering, g.ended = false, true
	if g.obeyed != nil {
		e = *g.obeyed
	}
	g.mu.Unlock()
	g.c.ReportExit(e)
}
