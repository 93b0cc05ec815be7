package recovery

import "time"

const (
	// settleTime is waited for after input that can't be replayed, so that a
	// burst of it costs one checkpoint.
	settleTime = 200 * time.Millisecond
	// firstSpacing is between two checkpoints for the sake of such input; it
	// doubles up to maxSpacing while the input goes on, as that of an exec probe
	// every second does, and falls back when it has stopped for quietTimes as
	// long.
	firstSpacing = 500 * time.Millisecond
	maxSpacing   = 10 * time.Second
	quietTimes   = 4
	// maxInputs bounds the list; more of them are as good as the last.
	maxInputs = 64
)

// input is one that no journal has.
type input struct {
	at   time.Time
	what string // for the status
	// until is when its effect was complete: a checkpoint that begins later has
	// it.
	until time.Time
	// counts: it is a reason for a checkpoint. urgent: whatever that costs.
	counts, urgent bool
	// replayable: it is no input, but another reason for a checkpoint soon.
	replayable bool
}

// inputs are those that the last checkpoint lacks, oldest first.
type inputs struct {
	list    []input
	last    time.Time // when the last checkpoint for their sake was due
	spacing time.Duration
	// sessions is the number of execs that run: each may do anything at any
	// time.
	sessions int
}

func (n *inputs) note(in input) {
	if in.until.IsZero() {
		in.until = in.at
	}
	if len(n.list) == maxInputs {
		l := &n.list[maxInputs-1]
		l.until = later(l.until, in.until)
		l.counts, l.urgent = l.counts || in.counts, l.urgent || in.urgent
		return
	}
	n.list = append(n.list, in)
}

// due is when a checkpoint should be made because of them; no cause: never.
func (n *inputs) due() (at time.Time, cause string, urgent bool) {
	until := time.Time{}
	for i := range n.list {
		in := &n.list[i]
		if !in.counts {
			continue
		}
		if cause == "" {
			at, cause = in.at.Add(settleTime), in.what
		}
		if in.urgent && !urgent {
			urgent, cause = true, in.what
		}
		until = later(until, in.until)
	}
	if cause == "" {
		return time.Time{}, "", false
	}
	if !urgent && n.spacing > 0 {
		at = later(at, n.last.Add(n.spacing))
	}
	return later(at, until), cause, urgent
}

// covered forgets what a checkpoint has that began at the time begun.
func (n *inputs) covered(begun time.Time) {
	if at, cause, urgent := n.due(); cause != "" && !urgent && !at.After(begun) {
		n.space(begun)
	}
	kept := n.list[:0]
	for _, in := range n.list {
		if in.until.After(begun) {
			kept = append(kept, in)
		}
	}
	n.list = kept
}

// space keeps a distance to the next that grows while such input goes on.
func (n *inputs) space(now time.Time) {
	gap := now.Sub(n.last)
	n.last = now
	if n.spacing == 0 || gap > quietTimes*max(n.spacing, time.Second) {
		n.spacing = firstSpacing
		return
	}
	n.spacing = min(2*n.spacing, maxSpacing)
}

// oldest is since when there is input that is lost in a crash; zero if there is
// none. last is when the last checkpoint began.
func (n *inputs) oldest(last time.Time) (time.Time, string) {
	for i := range n.list {
		if in := &n.list[i]; !in.replayable {
			return in.at, in.what
		}
	}
	if n.sessions > 0 {
		return last, "an exec session is open"
	}
	return time.Time{}, ""
}
