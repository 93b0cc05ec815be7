package recovery

import (
	"slices"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

// rise remembers the last recovery, and which checkpoints held a container that
// was dying already: one that was made while the application wrote its crash
// report restores well, and dies again.
type rise struct {
	seq    uint64 // of the checkpoint; 0: from the start
	at     time.Time
	doomed []uint64
}

// stillborn is within what time after its recovery a container that dies by
// itself was not well to begin with. Writing a crash report takes some
// ten milliseconds.
const stillborn = 500 * time.Millisecond

// from notes a recovery that has succeeded.
func (r *rise) from(w rung, now time.Time) {
	r.seq, r.at = 0, now
	if w.from != nil {
		r.seq = w.from.seq
	}
}

// crashed looks whether the checkpoint of the last recovery is to blame for a
// crash. A SIGKILL comes from outside.
func (r *rise) crashed(e lifecycle.Exit) {
	if r.seq == 0 || !r.short(e) {
		return
	}
	if !r.suspects(r.seq) {
		r.doomed = append(r.doomed, r.seq)
	}
	r.seq = 0
}

// short reports whether the container has died by itself right after a recovery.
func (r *rise) short(e lifecycle.Exit) bool {
	return !r.at.IsZero() && e.Status != 128+int(syscall.SIGKILL) && e.At.Sub(r.at) < stillborn
}

// suspects reports whether a checkpoint should be used only when nothing else is
// left.
func (r *rise) suspects(seq uint64) bool { return slices.Contains(r.doomed, seq) }
