package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/control"
	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/shim/lifecycle"

	"github.com/crsc-io/crsc/status"
)

// guard protects one container.
type guard struct {
	cfg *config.Config
	c   *lifecycle.Container
	log *logrus.Entry
	dir string // state directory

	// Set by Prepare and Created, constant afterwards.
	criuPath     string
	tracksMemory bool // the kernel knows which pages were written to
	patchedCRIU  bool
	upper        string
	pins         *criu.Pins
	files        *files
	// safeVolumes are the paths of writable volumes that are left alone.
	safeVolumes []string
	neighbours  neighbours
	// late: to recover, what nobody had answered had to come last.
	late bool
	// haveAnswers: the last plan could be arranged by answers. byAnswers: that had
	// to be done to recover.
	haveAnswers, byAnswers bool
	journal                *journal.Journal
	proxy                  *netproxy.Proxy
	tenant                 *tenant      // of the proxy
	key                    *journal.Key // of the journal; nil: it is not encrypted
	store                  *store
	usage                  memoryFiles // of the container's cgroup
	netns                  *os.File
	procs                  *processes
	images                 *publisher     // nil: checkpoints are not published
	begin                  *beginning     // nil: the container begins with its program
	filters                [][]byte       // of the created container; nil: not asked yet
	kept                   *redirect.Kept // addresses of the pod before; nil: none
	self                   *inheritance   // what a successor is compared with; nil: it leaves nothing
	factory                *Factory
	capturing              capturing
	// writing is held while the status file is written: a disk may take its time.
	writing sync.Mutex
	seat    string      // in the pod; empty: the container is in none
	legacy  *estate     // what the container before it has left, until it is taken over
	resumes *succession // nil: nothing was taken over

	// ctx lives as long as the guard; wg are its goroutines.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sched  *scheduler
	// givenBack: the memory of the checkpoints, at the end of the container.
	givenBack sync.Once
	unproxied sync.Once // the first connections past the proxy are told of
	// sessions are the execs that run.
	sessions sessions
	farewell farewell

	// Owned by whoever holds the container's turn (checkpoint) or runs the
	// recovery; never both.
	seq       uint64
	budget    budget
	rise      rise
	armed     *armed
	fromStart bool                 // the journal begins with the start of the container
	origin    journal.Position     // where it began
	startMark *lifecycle.StdioMark // standard output at the start

	stalled atomic.Pointer[string] // why the journal makes clients wait; empty: it does not

	mu         sync.Mutex // guards everything below
	control    *control.Server
	ready      bool // Started was called and protection is in force
	ended      bool // the container is gone for good
	paused     bool
	requested  bool // containerd asked for a checkpoint during the pause
	recovering bool
	blind      bool                // unprotected until the next complete checkpoint, for what the status says
	exits      chan lifecycle.Exit // of restored inits, while recovering
	died       *lifecycle.Exit     // of the restored init, in the attempt that is under way
	obeyed     *lifecycle.Exit     // of one that ended because it was asked to
	dumping    chan struct{}       // closed when the dump under way has ended
	cancelDump context.CancelCauseFunc
	intent     intent
	left       *estate // to the next container in the pod
	status     status.Status
}

// intent is what the orchestrator wants of the init.
type intent struct {
	sig syscall.Signal
	at  time.Time
}

// stopGrace is how long after a request to stop an exit is taken for its
// consequence. Kubernetes' longest usual grace periods are shorter.
const stopGrace = 10 * time.Minute

// echo is how long after any other signal a death by just that signal is.
const echo = 5 * time.Second

var stopRequests = []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGINT, syscall.SIGQUIT}

var _ lifecycle.Guard = (*guard)(nil)

// Prepare implements lifecycle.Guard: it decides whether the container can be
// protected and makes its state directory.
func (g *guard) Prepare(ctx context.Context, c *lifecycle.Container) error {
	err := g.prepare(ctx)
	if g.cfg.RestoreFrom == "" {
		g.orUnprotected(err)
		if err == nil {
			g.consider(ctx)
		}
		g.listen()
		return nil
	}
	if err == nil {
		err = g.fetchBeginning(ctx)
	}
	if err == nil {
		g.listen()
	}
	return g.refuse(err)
}

func (g *guard) prepare(ctx context.Context) error {
	spec, err := g.c.Spec()
	if err != nil {
		return err
	}
	if err := g.checkSpec(spec); err != nil {
		return err
	}
	if g.upper, err = findLayer(g.c.Mounts()); err != nil {
		return err
	}
	if err := errors.Join(mkdirPrivate(g.dir), g.noteState()); err != nil {
		return err
	}
	if g.criuPath, err = g.findCRIU(ctx); err != nil {
		return err
	}
	// State of an earlier container of this name does not fit the new one.
	if err := g.clearState(); err != nil {
		return err
	}
	if g.store, err = openStore(filepath.Join(g.dir, "checkpoints"), g.cfg.Durability == config.DurabilityDisk); err != nil {
		return err
	}
	g.store.onMoved = g.disarmFrom
	g.openMemory()
	if g.cfg.JournalEncryption {
		if g.key, err = newSecret(g.dir); err != nil {
			return err
		}
	}
	return g.openJournal()
}

// Created implements lifecycle.Guard: pins, first state of the files, proxy.
func (g *guard) Created(ctx context.Context, c *lifecycle.Container) error {
	if g.unprotectedNow() {
		return nil
	}
	err := g.created(ctx)
	if g.begin != nil && g.begin.inherited {
		g.keepInheritance(err)
	} else if g.begin != nil {
		if err == nil {
			err = g.checkBeginning()
		}
		return g.refuse(err)
	}
	g.orUnprotected(err)
	return nil
}

func (g *guard) created(ctx context.Context) error {
	pid := g.c.Pid()
	if err := ownNetNS(pid); err != nil {
		return err
	}
	if err := g.pin(pid); err != nil {
		return err
	}
	var err error
	if g.netns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
		return err
	}
	if err := os.Mkdir(g.genesis(), 0o700); err != nil {
		return err
	}
	if err := g.neighbours.sharing(); err != nil {
		return err
	}
	ds, err := g.files.prepare(g.genesis(), "")
	if err != nil {
		return err
	}
	if err := errors.Join(g.files.capture(ctx, ds), ds.discard()); err != nil {
		return err
	}
	g.preparePublishing()
	if g.procs, err = watchProcesses(pid); err != nil {
		return err
	}
	if g.usage, err = memoryFilesOf(pid); err != nil {
		return err
	}
	if g.legacy != nil {
		taken, err := g.takeOver(ctx)
		if taken || err != nil {
			return err
		}
	}
	if err := g.openProxy(); err != nil {
		return err
	}
	g.fromStart, g.origin, g.startMark = true, g.journal.Start(), g.c.MarkStdio()
	return g.proxy.Mark(ctx, journal.ContainerStart, 0)
}

// pin keeps what lives in the namespaces of pid alive, and finds the trees that
// are rolled back.
func (g *guard) pin(pid int) error {
	spec, err := g.c.Spec()
	if err != nil {
		return err
	}
	g.pins, err = criu.Pin(pid, spec, filepath.Join(g.dir, "pins"))
	if errors.Is(err, criu.ErrUnsupported) {
		return unprotected("%v", err)
	}
	if err != nil {
		return err
	}
	volumes, safe, err := sortVolumes(g.cfg, spec, g.pins.Volumes())
	if err != nil {
		return err
	}
	g.safeVolumes, g.neighbours = safe, neighbours{bundle: g.c.Bundle(), volumes: volumes}
	g.files = newFiles(g.c.Rootfs(), g.c.Mounts(), g.upper, g.pins.Scratch())
	g.files.addVolumes(volumes, g.cfg.VolumeMaxSize)
	return nil
}

func (g *guard) genesis() string { return filepath.Join(g.dir, "genesis") }

// clearState removes journal and checkpoints, and what a shim that was killed
// left: pins, the journal's key, checkpoints in memory, and the status of a container that no longer runs.
func (g *guard) clearState() error {
	if err := errors.Join(criu.RemovePins(filepath.Join(g.dir, "pins")), destroySecret(g.dir), removeMemory(g.memoryDir())); err != nil {
		return err
	}
	for _, name := range []string{"journal", "checkpoints", "genesis", "pins", "publish", "beginning"} {
		if err := os.RemoveAll(filepath.Join(g.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// orUnprotected makes the reason known why the container is not protected. The
// guard stays, to answer for the status until the container is deleted.
func (g *guard) orUnprotected(err error) {
	if err == nil {
		return
	}
	if !errors.Is(err, ErrUnprotected) {
		err = unprotected("%v", err)
	}
	g.setUnprotected(err)
	if err := g.dismantle(); err != nil {
		g.log.WithError(err).Warn("what was prepared for protection is not all undone")
	}
}

// Started implements lifecycle.Guard.
func (g *guard) Started(ctx context.Context, c *lifecycle.Container) {
	if g.unprotectedNow() {
		g.phase("running")
		return
	}
	g.mu.Lock()
	g.ready = true
	g.status.Protected, g.status.Phase, g.status.Pid = true, "running", c.Pid()
	g.mu.Unlock()
	g.writeStatus()
	g.sched.start(g.startMark)
	g.work("scheduler", func() { g.sched.run(g.ctx) })
	g.work("lookout", g.watchOut)
	if g.images != nil {
		g.work("images", func() { g.images.run(g.ctx) })
	}
	g.work("end", g.awaitEnd)
	g.work("processes", func() { g.procs.watch(g.ctx) })
	if g.begin != nil {
		// The journal does not reach back to where the memory comes from.
		g.wantCheckpoint("restored from an image")
	}
}

// awaitEnd ends the clients' connections however the container ended: a
// SIGKILL from the orchestrator comes without a call of Exited.
func (g *guard) awaitEnd() {
	if _, err := g.c.Wait(g.ctx, ""); err == nil {
		g.gone()
	}
}

// reachesStart says that a start from the beginning loses nothing.
func (g *guard) reachesStart() bool { return g.fromStart && g.journal.Start() == g.origin }

// Signalled implements lifecycle.Guard.
func (g *guard) Signalled(ctx context.Context, _ *lifecycle.Container, sig syscall.Signal) {
	g.beforeSignal(ctx, sig)
	g.mu.Lock()
	defer g.mu.Unlock()
	if sig == 0 {
		return
	}
	if !g.stopping() {
		g.intent = intent{sig, time.Now()}
	}
	if sig == syscall.SIGKILL {
		if g.cancelDump != nil {
			g.cancelDump(ErrStopped)
		}
		if g.recovering {
			g.proxy.Abort()
		}
	}
}

// stopping says that the orchestrator has asked for the end. The caller holds
// mu.
func (g *guard) stopping() bool {
	return slices.Contains(stopRequests, g.intent.sig) && time.Since(g.intent.at) < stopGrace
}

// ExecStarted implements lifecycle.Guard: what an exec does can't be replayed.
func (g *guard) ExecStarted(_ context.Context, _ *lifecycle.Container, pid int) {
	if !g.isReady() {
		return
	}
	if err := g.sessions.add(pid); err != nil {
		g.log.WithError(err).Warn("the end of an exec will not be noticed")
	}
	g.noteInput(input{at: time.Now(), what: "exec", counts: g.cfg.Unreplayable.Exec})
}

// Exited implements lifecycle.Guard.
func (g *guard) Exited(_ context.Context, _ *lifecycle.Container, e lifecycle.Exit) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.resumes.begins() {
		g.recovering = true
		g.work("resumption", func() { g.recover(e, g.resume) })
		return true
	}
	if g.recovering {
		// The restored init has died too: the recovery under way deals with it.
		if g.stopping() && e.Status != 128+int(syscall.SIGKILL) {
			g.obeyed = &e
		}
		g.died = &e
		g.exits <- e
		g.proxy.Abort()
		return true
	}
	if reason := g.plainExitLocked(e); reason != "" {
		g.log.WithField("status", e.Status).Infof("exit is not recovered: %s", reason)
		g.ended = true
		if g.ready {
			g.work("end", g.gone)
		}
		return false
	}
	g.recovering, g.obeyed = true, nil
	g.sched.crashed()
	if g.cancelDump != nil {
		g.cancelDump(errors.New("the container crashed"))
	}
	g.work("recovery", func() { g.recover(e, g.hide) })
	return true
}

// plainExitLocked says why an exit is an exit and not a crash; empty for a
// crash.
func (g *guard) plainExitLocked(e lifecycle.Exit) string {
	sig := syscall.Signal(e.Status - 128)
	switch {
	case !g.ready:
		return "not protected"
	case g.blind:
		return g.status.Reason
	case e.Status == 0:
		return "it ended by itself"
	case g.stopping():
		return fmt.Sprintf("it was asked to stop (%v)", g.intent.sig)
	case g.intent.sig == sig && time.Since(g.intent.at) < echo:
		return fmt.Sprintf("it was sent %v", sig)
	case g.typedAway(e):
		return "its terminal was hung up, or somebody who typed there ended it"
	case e.OOM && !g.cfg.RecoverOOM:
		return "out of memory (crsc.io/recover-oom is false)"
	}
	return ""
}
