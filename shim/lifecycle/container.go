package lifecycle

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/mount"
	runc "github.com/containerd/go-runc"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/semaphore"
)

// turns is the number of shares of Container.turn: all of them for an operation
// that must be alone, one for the start of an exec.
const turns = 1 << 20

// Container is one container and its processes.
type Container struct {
	id      string
	bundle  string
	mounts  []mount.Mount
	rootfs  string // mount point, empty if the request had no mounts
	options *options.Options
	runc    *runc.Runc
	s       *Supervisor

	annotations map[string]string
	// restoreFrom is set for a container that was created from a checkpoint.
	restoreFrom *runc.RestoreOpts

	// turn makes operations take turns; see Exclusive.
	turn *semaphore.Weighted

	// mu guards everything below, and the processes. It is held for moments.
	mu         sync.Mutex
	guard      Guard
	sharedPIDs bool
	init       *process
	execs      map[string]*process
	liveExecs  int   // execs starting or running
	final      *Exit // init's exit once it is to be published
	finishing  bool  // work is going on before final may be published
	pausing    bool
	killed     bool // the orchestrator has sent SIGKILL to init
	recovery   *recovery
	restored   bool // runc's state was made anew by a guard
	cgroup     *cgroup
	oom        *oomWatch
	stats      any // the last statistics, kept for a guarded container only
}

// ID of the container.
func (c *Container) ID() string { return c.id }

// Namespace is containerd's namespace of the container.
func (c *Container) Namespace() string { return c.s.namespace }

// Bundle is the path of the OCI bundle.
func (c *Container) Bundle() string { return c.bundle }

// Mounts are the mounts that make up the root filesystem, as requested. The
// slice must not be written to.
func (c *Container) Mounts() []mount.Mount { return c.mounts }

// Rootfs is the absolute path of the root filesystem.
func (c *Container) Rootfs() string {
	if c.rootfs != "" {
		return c.rootfs
	}
	spec, err := c.Spec()
	if err != nil || spec.Root == nil {
		return filepath.Join(c.bundle, rootfsDir)
	}
	if filepath.IsAbs(spec.Root.Path) {
		return spec.Root.Path
	}
	return filepath.Join(c.bundle, spec.Root.Path)
}

// Annotations of the container as created. The map must not be written to.
func (c *Container) Annotations() map[string]string { return c.annotations }

// Options are the runtime options of the creation, never nil. They must not be
// written to.
func (c *Container) Options() *options.Options { return c.options }

// Runc is the client for this container. Its processes run under the reaper.
func (c *Container) Runc() *runc.Runc { return c.runc }

// Spec reads the bundle's spec. The caller may change what it gets.
func (c *Container) Spec() (*specs.Spec, error) { return readSpec(c.bundle) }

// WriteSpec replaces the bundle's spec. It is for Guard.Prepare: runc reads
// the spec when it creates or restores the container.
func (c *Container) WriteSpec(spec *specs.Spec) error {
	if err := writeSpec(c.bundle, spec); err != nil {
		return fmt.Errorf("write spec of %s: %w", c.id, err)
	}
	c.mu.Lock()
	c.sharedPIDs = sharesPIDs(spec)
	c.mu.Unlock()
	return nil
}

// Pid of init in the shim's PID namespace: while recovering that of the dead
// init, 0 before the start of a container created from a checkpoint.
func (c *Container) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.init.pid
}

// Phase of init.
func (c *Container) Phase() Phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.init.phase
}

// Publish queues an event, in order with the container's own. The event must be
// a protobuf message or registered with typeurl.
func (c *Container) Publish(topic string, event any) { c.s.events.publish(topic, event) }

// MarkStdio remembers how far the standard streams are. While the container is
// frozen the mark is exact: nothing is counted twice or left out. It costs two
// system calls per stream. It returns nil, which Restore takes as well, if the
// streams do not pass the shim.
func (c *Container) MarkStdio() *StdioMark {
	c.mu.Lock()
	s := c.init.streams
	c.mu.Unlock()
	if s == nil || !s.lasting {
		return nil
	}
	return s.mark()
}

// Typed returns when somebody last typed in the terminal of a guarded container,
// zero if nobody has or there is none, and whether the client has hung up.
func (c *Container) Typed() (last time.Time, hungUp bool) {
	c.mu.Lock()
	s := c.init.streams
	c.mu.Unlock()
	if s == nil {
		return time.Time{}, false
	}
	return s.typed()
}

// Exclusive waits until no start, pause, resume, update, checkpoint, restore or
// delete is under way, and keeps them out until release is called. A guard
// holds it while it makes a checkpoint, and must release it before Restore.
//
// Errors: the context's.
func (c *Container) Exclusive(ctx context.Context) (release func(), err error) {
	return c.take(ctx, turns)
}

func (c *Container) take(ctx context.Context, shares int64) (func(), error) {
	if err := c.turn.Acquire(ctx, shares); err != nil {
		return nil, fmt.Errorf("wait for the container's operation in progress: %w", err)
	}
	return sync.OnceFunc(func() { c.turn.Release(shares) }), nil
}

// settle waits for the end of a recovery, then takes shares of the turn.
func (c *Container) settle(ctx context.Context, shares int64) (func(), error) {
	for {
		c.mu.Lock()
		r := c.recovery
		c.mu.Unlock()
		if r != nil {
			select {
			case <-r.over:
			case <-ctx.Done():
				return nil, fmt.Errorf("wait for the container's recovery: %w", ctx.Err())
			}
		}
		release, err := c.take(ctx, shares)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		r = c.recovery
		c.mu.Unlock()
		if r == nil {
			return release, nil
		}
		release()
	}
}

// process returns init for an empty ID.
func (c *Container) process(id string) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == "" {
		return c.init, nil
	}
	if p := c.execs[id]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s: %w", id, ErrNoProcess)
}

func (c *Container) currentGuard() Guard {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.guard
}

// takeGuard leaves the container without its guard.
func (c *Container) takeGuard() Guard {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.guard
	c.guard = nil
	return g
}

// logger for what the container's requests don't report.
func (c *Container) logger(ctx context.Context) *log.Entry {
	return log.G(ctx).WithField("id", c.id)
}

// loadCgroup finds init's cgroup and starts to watch it for OOM, from scratch
// after a restore. Failures are logged: the container runs without statistics.
func (c *Container) loadCgroup(ctx context.Context, pid int) {
	g, err := loadCgroup(pid)
	if err != nil {
		c.logger(ctx).WithError(err).Error("no statistics")
		return
	}
	g.enableControllers(ctx)
	w, err := g.watchOOM(c.publishOOM)
	if err != nil {
		c.logger(ctx).WithError(err).Error("no OOM events")
	}
	c.mu.Lock()
	c.cgroup, c.oom = g, w
	c.mu.Unlock()
}

// closeOOM must precede the removal of the cgroup.
func (c *Container) closeOOM() {
	c.mu.Lock()
	w := c.oom
	c.oom = nil
	c.mu.Unlock()
	w.close()
}
