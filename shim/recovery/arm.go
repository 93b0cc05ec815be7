package recovery

import (
	"context"
	"errors"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/shim/lifecycle"
)

// armed is a restore of the last checkpoint that stands ready: CRIU has been
// started and has read the images. It saves half of a restore's time.
type armed struct {
	seq   uint64
	criu  *criu.Armed
	stdio *lifecycle.Stdio
}

// rearm makes a restore of cp ready in place of the one before. Failing is
// nothing but slower: the restore is started when it is needed.
func (g *guard) rearm(ctx context.Context, cp *checkpoint) {
	g.disarm()
	stdio, err := g.c.NewStdio()
	if err != nil {
		g.log.WithError(err).Debug("restore is not armed")
		return
	}
	ctx, cancel := limitRestore(ctx, cp)
	defer cancel()
	a, err := criu.Arm(ctx, g.restoreOptions(cp, stdio))
	if err != nil {
		g.log.WithError(errors.Join(err, stdio.Close())).Debug("restore is not armed")
		return
	}
	g.armed = &armed{seq: cp.seq, criu: a, stdio: stdio}
}

// disarm ends the restore that stands ready.
func (g *guard) disarm() {
	a := g.armed
	g.armed = nil
	if a == nil {
		return
	}
	if err := errors.Join(a.criu.Close(), a.stdio.Close()); err != nil {
		g.log.WithError(err).Warn("disarm a restore")
	}
}

// disarmFrom ends the restore that stands ready if it is from cp.
func (g *guard) disarmFrom(cp *checkpoint) {
	if g.armed != nil && g.armed.seq == cp.seq {
		g.disarm()
	}
}

// takeArmed returns what stands ready for cp, or nil. The caller owns it.
func (g *guard) takeArmed(cp *checkpoint) *armed {
	a := g.armed
	if a == nil || cp == nil || a.seq != cp.seq {
		g.disarm()
		return nil
	}
	g.armed = nil
	return a
}

func (g *guard) restoreOptions(cp *checkpoint, stdio *lifecycle.Stdio) criu.RestoreOptions {
	return criu.RestoreOptions{
		Path: g.criuPath, Root: g.c.Runc().Root, ID: g.c.ID(), Rootfs: g.c.Rootfs(),
		Pins: g.pins, Images: cp.images(), Stdio: stdio.Files(), Start: startUnderReaper,
		Kerndat: g.kerndatFile(), Ceiling: cp.ceiling, OnConsole: stdio.SetConsole, OnPostRestore: stdio.Settle,
	}
}
