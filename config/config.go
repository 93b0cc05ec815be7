package config

import (
	"fmt"
	"time"
)

// Off is the value of a trigger or a limit that is switched off.
const Off = 0

// Config is everything that decides how one container is treated.
type Config struct {
	// Enabled says that the container is to be protected.
	Enabled bool
	// Interval is the longest time between two checkpoints; Off: the clock
	// does not trigger checkpoints.
	Interval time.Duration
	// JournalSize is the number of journalled bytes since the last checkpoint
	// that triggers the next one; Off: the amount does not trigger checkpoints.
	JournalSize int64
	// JournalRecords is the number of input records since the last checkpoint
	// that triggers the next one; Off: their number does not.
	JournalRecords int64
	// Cron are times at which a checkpoint is made.
	Cron Cron
	// RecoveryTarget is how long a recovery may take; Off: checkpoints are not
	// made for its sake.
	RecoveryTarget time.Duration
	// OnStop bounds how long a checkpoint may delay the orchestrator's request to
	// stop; 0: there is none.
	OnStop time.Duration
	// Pressure triggers checkpoints when memory is short.
	Pressure Pressure
	// Unreplayable are the kinds of input that trigger a checkpoint soon.
	Unreplayable Unreplayable
	// JournalMaxSize is the number of bytes that the journal may hold on disk.
	JournalMaxSize int64
	// Durability says what the journal must survive before output is released.
	Durability Durability
	// JournalFault says what happens when the journal can't be written.
	JournalFault JournalFault
	// Order says how the order is learned in which the application consumes
	// its input.
	Order Order
	// Budget limits how often the container is recovered in place.
	Budget Budget
	// OverBudget says how the next container in the pod begins after that.
	OverBudget OverBudget
	// RecoverOOM says that a container killed for lack of memory is recovered.
	RecoverOOM bool
	// SafeVolumes are absolute, clean paths in the container, sorted, of
	// writable volumes that their owner declares safe to be newer than memory.
	SafeVolumes []string
	// Volumes says what becomes of all other writable volumes.
	Volumes Volumes
	// VolumeMaxSize is the number of bytes that a snapshotted volume may hold.
	VolumeMaxSize int64
	// DeletedMaxSize is the number of bytes that a file which is open and has no
	// name may hold; it fits in 32 bits.
	DeletedMaxSize int64
	// CheckpointMemory is the number of bytes of memory that the checkpoints of
	// the container may take; Off: they are written to disk.
	CheckpointMemory int64
	// JournalEncryption encrypts what the journal writes.
	JournalEncryption bool
	// Intercept says which connections go through the proxy.
	Intercept Intercept
	// ExcludeIn is what is not proxied of the connections that clients open to
	// the container, ExcludeOut of those that it opens itself.
	ExcludeIn, ExcludeOut Exclude
	// Probes says how long the node's own connections wait for a recovery.
	Probes Probes
	// ProxyMemory is how many bytes the proxy may keep for slow ends.
	ProxyMemory int64
	// MaxConnections is how many connections the proxy serves at a time.
	MaxConnections int
	// JournalUDP says that datagrams to the container's servers are journaled.
	JournalUDP bool
	// InterceptLoopback says that the pod's other containers are proxied, too.
	InterceptLoopback bool
	// Containers are the names of the pod's containers that are meant, sorted;
	// none: all of them.
	Containers []string
	// AcrossPods says that the next pod of the same name resumes.
	AcrossPods bool
	// Publish says that checkpoints become OCI images.
	Publish bool
	// PublishKeep is how many images stay, at least 1.
	PublishKeep int
	// PublishHourly and PublishDaily are of how many hours and days the newest
	// image stays as well.
	PublishHourly, PublishDaily int
	// PublishMaxSize is the number of bytes that they may take; Off: any.
	PublishMaxSize int64
	// RestoreFrom names the image that the container begins with; empty: none.
	RestoreFrom string
	// Images are the node's keys for checkpoint images.
	Images Images

	// StateDir is the absolute path under which the shim keeps checkpoints,
	// journals and status files, as <StateDir>/<namespace>/<container id>.
	StateDir string
	// CRIU is the absolute path of the criu binary; empty: found on PATH.
	CRIU string
	// MaxConcurrentDumps limits how many containers of the node are dumped at a
	// time; Off: any number.
	MaxConcurrentDumps int
	// NodePublishMaxSize is the number of bytes that the images of all
	// containers of the node may take; Off: any.
	NodePublishMaxSize int64
	// NodeCheckpointMemory is the number of bytes of memory that the checkpoints
	// of all containers of the node may take together; Off: any.
	NodeCheckpointMemory int64
	// CheckpointJitter is the fraction of the interval, from 0 to 0.5, by which
	// checkpoints come early at random.
	CheckpointJitter float64
	// LetProcessorsSleep: idle processors may sleep also while tasks are frozen.
	LetProcessorsSleep bool
	// LogLevel is the level of the shim's log: trace, debug, info, warn, error.
	LogLevel string
}

// clone returns a copy that shares nothing with c.
func (c *Config) clone() *Config {
	d := *c
	d.SafeVolumes = append([]string(nil), c.SafeVolumes...)
	d.ExcludeIn, d.ExcludeOut = c.ExcludeIn.clone(), c.ExcludeOut.clone()
	d.Images.TrustedKeys = append([]string(nil), c.Images.TrustedKeys...)
	d.Images.EncryptFor = append([]string(nil), c.Images.EncryptFor...)
	d.Containers = append([]string(nil), c.Containers...)
	return &d
}

// validate checks what concerns more than one key.
func (c *Config) validate() error {
	if c.JournalSize != Off && c.JournalMaxSize < c.JournalSize {
		return &KeyError{
			Key: KeyJournalMaxSize, Value: FormatSize(c.JournalMaxSize), Err: ErrConflict,
			Hint: fmt.Sprintf("it must be at least %s, which is %s", KeyJournalSize, FormatSize(c.JournalSize)),
		}
	}
	if c.RestoreFrom != "" && !c.Enabled {
		return &KeyError{Key: KeyRestoreFrom, Value: c.RestoreFrom, Err: ErrConflict, Hint: "it needs " + KeyEnabled + "=true"}
	}
	return nil
}

// Durability is what committed input survives.
type Durability int

// The durability classes, from the cheapest to the safest.
const (
	DurabilityMemory    Durability = iota // a crash of the container
	DurabilityPageCache                   // also a crash of the shim
	DurabilityDisk                        // also a crash of the host
)

// String returns the form that the annotation has.
func (d Durability) String() string { return [...]string{"memory", "page-cache", "disk"}[d] }

// Order is a source of the order of consumption.
type Order int

// The sources of the order of consumption.
const (
	OrderAuto       Order = iota // tracepoint where the kernel offers it, else serial
	OrderTracepoint              // observed by a BPF program, costs next to nothing
	OrderSerial                  // one input at a time
)

// String returns the form that the annotation has.
func (o Order) String() string { return [...]string{"auto", "tracepoint", "serial"}[o] }

// OverBudget is how a container begins that takes the place of one which has
// crashed too often.
type OverBudget int

// The ways to begin.
const (
	OverBudgetResume OverBudget = iota // where the one before it had crashed
	OverBudgetFresh                    // with its program
)

// String returns the form that the annotation has.
func (o OverBudget) String() string { return [...]string{"resume", "fresh"}[o] }

// Budget is the number of recoveries in place within a moving window of time.
type Budget struct {
	// Unlimited makes the other fields meaningless.
	Unlimited bool
	// Recoveries may be 0: then every crash is reported as a plain exit.
	Recoveries int
	// Window is positive.
	Window time.Duration
}

// String returns the form that the annotation has.
func (b Budget) String() string {
	if b.Unlimited {
		return "unlimited"
	}
	return fmt.Sprintf("%d/%s", b.Recoveries, formatDuration(b.Window))
}

// PortRange holds the ports First to Last, both included.
type PortRange struct{ First, Last uint16 }

// String returns the form that the annotation has.
func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}
