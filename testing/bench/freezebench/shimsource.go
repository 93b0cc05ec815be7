package freezebench

import (
	"context"
	"fmt"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
)

// ownLimit bounds the wait for one checkpoint of the shim's own.
const ownLimit = 20 * time.Second

// shimSource lets the shim make checkpoints by the clock.
type shimSource struct {
	interval time.Duration
	disk     bool // no checkpoint in memory

	failed    int // checkpoints, so far
	lastError string
}

func (f *shimSource) failures() (int, string) { return f.failed, f.lastError }

func (f *shimSource) prefix() string {
	if f.disk {
		return "disk-"
	}
	return "crsc-"
}

func (f *shimSource) stop(ctx context.Context, _ *bench.Rig, s *bench.Server) error {
	return s.Remove(ctx)
}

func (f *shimSource) start(ctx context.Context, rig *bench.Rig, id string) (*bench.Server, error) {
	settings := map[string]string{
		"checkpoint-interval": f.interval.String(), "checkpoint-journal-size": "off", "checkpoint-journal-records": "off",
		"journal-max-size": "8Gi", "checkpoint-memory": "1Gi",
	}
	if f.disk {
		settings["checkpoint-memory"] = "off"
	}
	return rig.StartRedis(ctx, bench.ServerOptions{ID: id, Pod: id, Settings: settings})
}

// collect reads the status file, which tells of the last checkpoint only, often
// enough to see each.
func (f *shimSource) collect(ctx context.Context, _ *bench.Rig, s *bench.Server, count int) ([]checkpoint, error) {
	var out []checkpoint
	begun := time.Now()
	last, seen := begun, uint64(0)
	for len(out) < count {
		st, err := s.Status()
		if err != nil {
			return nil, err
		}
		f.failed, f.lastError = st.Checkpoints.Failed, st.Checkpoints.LastError
		switch c := st.Checkpoints.Last; {
		case c != nil && c.Sequence > seen:
			if c.Time.After(begun) { // not one that was under way
				out = append(out, checkpoint{begun: c.Time, held: c.HeldMS, frozen: c.FrozenMS, cut: c.CutMS, total: c.TotalMS, quiet: c.Quiet})
			}
			seen, last = c.Sequence, time.Now()
		case time.Since(last) > ownLimit:
			return nil, fmt.Errorf("no checkpoint for %v: %s", ownLimit, f.lastError)
		}
		if err := bench.Pause(ctx, min(f.interval/10, 20*time.Millisecond)); err != nil {
			return nil, err
		}
	}
	return out, nil
}
