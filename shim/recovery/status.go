package recovery

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Status is what an operator may know of a container. It is written to
// status.json in the container's state directory whenever it changes.
type Status struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	// Protected says that a crash now would be hidden; otherwise Reason says
	// why not.
	Protected bool   `json:"protected"`
	Reason    string `json:"reason,omitempty"`
	// Phase is running, recovering or stopped.
	Phase   string `json:"phase"`
	Pid     int    `json:"pid"`
	ShimPid int    `json:"shim_pid"`
	// Goroutines of the shim, for those who look for leaks.
	Goroutines int       `json:"goroutines"`
	Updated    time.Time `json:"updated"`
	// Order is where the order of consumption comes from; OrderReason why it
	// is not the preferred source.
	Order       string           `json:"order,omitempty"`
	OrderReason string           `json:"order_reason,omitempty"`
	Connections int64            `json:"connections"`
	Intercepted []string         `json:"intercepted,omitempty"`
	Checkpoints CheckpointStatus `json:"checkpoints"`
	// RecoveryCount counts successful recoveries since the container started;
	// Recoveries are the last of them.
	RecoveryCount  int              `json:"recovery_count"`
	RecoveryFailed int              `json:"recovery_failed"`
	Recoveries     []RecoveryStatus `json:"recoveries"`
}

// CheckpointStatus sums up a container's checkpoints.
type CheckpointStatus struct {
	Count  int `json:"count"`
	Failed int `json:"failed"`
	// Last is the last complete one.
	Last *CheckpointInfo `json:"last,omitempty"`
	// LastError is the failure of the last attempt, if it failed.
	LastError string `json:"last_error,omitempty"`
}

// CheckpointInfo describes one complete checkpoint. Times are in milliseconds.
type CheckpointInfo struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Cause    string    `json:"cause"`
	FrozenMS float64   `json:"frozen_ms"`
	// HeldMS is how long input was held back before the freeze.
	HeldMS      float64 `json:"held_ms"`
	TotalMS     float64 `json:"total_ms"`
	Pages       uint64  `json:"pages"`
	Connections int     `json:"connections"`
	// Quiet: nothing was in flight at the cut, so a replay is in exact order.
	Quiet bool `json:"quiet"`
}

// RecoveryStatus describes one recovery. Times are in milliseconds from the
// death of the init.
type RecoveryStatus struct {
	// Time is when the recovery was complete, Crashed when the init was reaped.
	Time    time.Time `json:"time"`
	Crashed time.Time `json:"crashed"`
	Cause   string    `json:"cause"`
	// DetectMS until the shim had reaped the init, RestoreMS from there until
	// the restored processes ran, ReplayMS until the tail had been fed.
	DetectMS  float64 `json:"detect_ms"`
	RestoreMS float64 `json:"restore_ms"`
	ReplayMS  float64 `json:"replay_ms"`
	TotalMS   float64 `json:"total_ms"`
	// Parts of RestoreMS.
	DrainMS    float64 `json:"drain_ms"`
	PlanMS     float64 `json:"plan_ms"`
	RollbackMS float64 `json:"rollback_ms"`
	LegsMS     float64 `json:"legs_ms"`
	CRIUMS     float64 `json:"criu_ms"`

	Records        int    `json:"records"`
	Bytes          int64  `json:"bytes"`
	SwallowedBytes uint64 `json:"swallowed_bytes"`
	Differing      uint64 `json:"differing"`
	Reset          int    `json:"reset"`
	Connections    int    `json:"connections"`
	// Checkpoint it was restored from; 0 is the start of the container.
	Checkpoint uint64 `json:"checkpoint"`
	Attempts   int    `json:"attempts"`
}

// keptRecoveries bounds Status.Recoveries.
const keptRecoveries = 512

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// write replaces the file atomically. It is not synced: after a crash of the
// host the status is of no use.
func (s *Status) write(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	tmp := filepath.Join(dir, ".status.json")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, "status.json")); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	return nil
}
