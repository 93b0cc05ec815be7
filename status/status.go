package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Status is what an operator may know of a container. It is written to
// status.json in the container's state directory whenever it changes.
type Status struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	// Pod is there if the container belongs to one of Kubernetes.
	Pod *Pod `json:"pod,omitempty"`
	// Protected says that a crash now would be hidden; otherwise Reason says
	// why not.
	Protected bool   `json:"protected"`
	Reason    string `json:"reason,omitempty"`
	// JournalFault is why clients wait: the journal can't be written, and
	// crsc.io/on-journal-fault is hold. Empty when they do not.
	JournalFault string `json:"journal_fault,omitempty"`
	// Phase is running, recovering or stopped.
	Phase   string `json:"phase"`
	Pid     int    `json:"pid"`
	ShimPid int    `json:"shim_pid"`
	// ShimStarted is when the shim started, in clock ticks since the host did: another
	// process may have its PID after it.
	ShimStarted uint64 `json:"shim_started,omitempty"`
	// Goroutines of the shim, for those who look for leaks.
	Goroutines int       `json:"goroutines"`
	Updated    time.Time `json:"updated"`
	// Order is where the order of consumption comes from; OrderReason why it
	// is not the preferred source.
	Order       string   `json:"order,omitempty"`
	OrderReason string   `json:"order_reason,omitempty"`
	Connections int64    `json:"connections"`
	Intercepted []string `json:"intercepted,omitempty"`
	// Unproxied is there if the last checkpoint found connections past the proxy.
	Unproxied *Unproxied `json:"unproxied,omitempty"`
	// Traffic is there from when the container is protected on.
	Traffic *Traffic `json:"traffic,omitempty"`
	// Datagrams is there if UDP is journaled.
	Datagrams *Datagrams `json:"datagrams,omitempty"`
	// RestoredFrom is the image that the container began with, and its digest, or
	// what the container before it had left, of the pod before or of the same.
	RestoredFrom string `json:"restored_from,omitempty"`
	// NotResumed says why the container did not go on where the one before it, of
	// the pod before or of the same, had ended.
	NotResumed  string      `json:"not_resumed,omitempty"`
	Checkpoints Checkpoints `json:"checkpoints"`
	// UnreplayableSince is the time of the oldest input that a crash now would
	// lose, or may, since it came after the last checkpoint and can't be replayed;
	// Unreplayable says what it was. A long-lived connection is one whose
	// beginning can't be replayed if it was encrypted. While an exec session is
	// open it is the time of the last checkpoint: what happens in it is not known.
	UnreplayableSince *time.Time      `json:"unreplayable_since,omitempty"`
	Unreplayable      string          `json:"unreplayable,omitempty"`
	RecoveryTarget    *RecoveryTarget `json:"recovery_target,omitempty"`
	Pressure          *Pressure       `json:"pressure,omitempty"`
	// Images are there if checkpoints are published as OCI images.
	Images *Images `json:"images,omitempty"`
	// RecoveryCount counts successful recoveries since the container started;
	// Recoveries are the last of them.
	RecoveryCount  int        `json:"recovery_count"`
	RecoveryFailed int        `json:"recovery_failed"`
	Recoveries     []Recovery `json:"recoveries"`
}

// Unproxied are the application's TCP connections that do not go through the proxy:
// excluded ones, those to name servers, to others in the pod over loopback, and those
// from before the protection. A recovery resets them.
type Unproxied struct {
	Count int `json:"count"`
	// Connections are the first of them, at most UnproxiedListed: the application's
	// end and the other, with a space between.
	Connections []string `json:"connections"`
}

// UnproxiedListed bounds Unproxied.Connections.
const UnproxiedListed = 16

// Datagrams counts those to the container since its start.
type Datagrams struct {
	Journaled uint64 `json:"journaled"`
	// Dropped were not given to the application for lack of room.
	Dropped uint64 `json:"dropped"`
	// Repeated were sent again after crashes, and kept from their receivers.
	Repeated uint64 `json:"repeated"`
}

// Checkpoints sums up a container's checkpoints.
type Checkpoints struct {
	Count  int `json:"count"`
	Failed int `json:"failed"`
	// Last is the last complete one.
	Last *Checkpoint `json:"last,omitempty"`
	// Kept are those that a recovery can begin with, the newest first.
	Kept []Checkpoint `json:"kept,omitempty"`
	// Memory is nil if checkpoints are written to disk only.
	Memory *Memory `json:"memory,omitempty"`
	// LastError is the failure of the last attempt, if it failed.
	LastError string `json:"last_error,omitempty"`
	// RetryAt is the earliest time of the next attempt, if the last one failed.
	RetryAt *time.Time `json:"retry_at,omitempty"`
}

// RecoveryTarget tells how the annotation crsc.io/recovery-target is kept.
type RecoveryTarget struct {
	TargetMS float64 `json:"target_ms"`
	// EstimateMS is how long a recovery would take now, RestoreMS the part of it
	// that no further checkpoint shortens. 0: not known yet.
	EstimateMS float64 `json:"estimate_ms"`
	RestoreMS  float64 `json:"restore_ms"`
	// Reason says why the target is not kept now.
	Reason string `json:"reason,omitempty"`
	// Recoveries counts them, Within those that took no longer than wanted, from
	// the first closed connection on.
	Recoveries int `json:"recoveries"`
	Within     int `json:"within"`
}

// Pressure is how short of memory a container was at the last look.
type Pressure struct {
	// MemoryPercent is the working set in percent of the limit; nil without a
	// limit. Below the threshold the page cache counts as well.
	MemoryPercent *float64 `json:"memory_percent,omitempty"`
	// StalledPercent is the share of the last ten seconds in which some process
	// waited for memory, of those in the container's cgroup or on the whole
	// host: StalledSource is "cgroup", "host", or empty if the kernel tells
	// neither.
	StalledPercent float64 `json:"stalled_percent"`
	StalledSource  string  `json:"stalled_source,omitempty"`
	// Reason says what can't be watched.
	Reason string `json:"reason,omitempty"`
}

// Checkpoint describes one complete checkpoint. Times are in milliseconds.
type Checkpoint struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Cause    string    `json:"cause"`
	FrozenMS float64   `json:"frozen_ms"`
	// PreDumps is how often memory was copied ahead of the freeze; LongestMS is
	// FrozenMS, or the stop for a pre-dump if one was longer.
	PreDumps  int     `json:"pre_dumps,omitempty"`
	LongestMS float64 `json:"longest_ms"`
	// CutMS is the part of FrozenMS that the shim's own work took: the table of
	// connections, the writable layer and the tmpfs.
	CutMS float64 `json:"cut_ms"`
	// HeldMS is how long input was held back before the freeze.
	HeldMS      float64 `json:"held_ms"`
	TotalMS     float64 `json:"total_ms"`
	Pages       uint64  `json:"pages"`
	Connections int     `json:"connections"`
	// Place is where CRIU's images were written, memory or disk; PlaceReason why
	// it was disk although the configuration allows memory.
	Place       string `json:"place"`
	PlaceReason string `json:"place_reason,omitempty"`
	// Quiet: nothing was in flight at the cut, so a replay is in exact order.
	Quiet bool `json:"quiet"`
}

// Recovery describes one recovery. Times are in milliseconds from the
// death of the init.
type Recovery struct {
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

	// SlowestMS is the longest step of the replay, out of Steps.
	SlowestMS      float64 `json:"slowest_ms"`
	SlowestStep    int     `json:"slowest_step"`
	Steps          int     `json:"steps"`
	Records        int     `json:"records"`
	Bytes          int64   `json:"bytes"`
	SwallowedBytes uint64  `json:"swallowed_bytes"`
	Differing      uint64  `json:"differing"`
	Reset          int     `json:"reset"`
	Connections    int     `json:"connections"`
	// Checkpoint it was restored from; 0 is the start of the container.
	Checkpoint uint64 `json:"checkpoint"`
	Attempts   int    `json:"attempts"`
	// EstimateMS is what was expected before the crash, where there is a
	// recovery target and the last checkpoint served.
	EstimateMS float64 `json:"estimate_ms,omitempty"`
}

// KeptRecoveries bounds Status.Recoveries.
const KeptRecoveries = 512

// FileName is the status file in a container's state directory.
const FileName = "status.json"

// Milliseconds converts a duration to the form of the status file.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Clone returns a copy that shares nothing which is changed in place.
func (s *Status) Clone() Status {
	c := *s
	c.Intercepted, c.Recoveries = slices.Clone(s.Intercepted), slices.Clone(s.Recoveries)
	if s.Images != nil {
		images := *s.Images
		c.Images = &images
	}
	return c
}

// reserveName is a file that keeps room for the status on a disk that fills up:
// that is when somebody will want to read it.
const (
	reserveName = ".reserve"
	reserveSize = 64 << 10
)

// Write replaces the file in dir atomically. It is not synced: after a crash of
// the host the status is of no use.
func (s *Status) Write(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	b = append(b, '\n')
	reserve := filepath.Join(dir, reserveName)
	err = replace(dir, b)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		if err = os.Remove(reserve); err == nil {
			err = replace(dir, b)
		}
	}
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if _, err := os.Lstat(reserve); errors.Is(err, fs.ErrNotExist) {
		// Without it the status is written all the same.
		if allocate(reserve, reserveSize) != nil {
			_ = os.Remove(reserve)
		}
	}
	return nil
}

func replace(dir string, b []byte) error {
	tmp := filepath.Join(dir, "."+FileName)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, filepath.Join(dir, FileName))
}

// allocate makes a file that has its blocks.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
}

// Read returns the status in dir. The error is fs.ErrNotExist if there is none.
func Read(dir string) (*Status, error) {
	path := filepath.Join(dir, FileName)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	var s Status
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("status: %s is damaged: %w; the container's shim writes it anew, and if there is none it can be removed", path, err)
	}
	return &s, nil
}
