package criu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
)

// DumpOptions says what to dump and where to.
type DumpOptions struct {
	// Path of the CRIU binary, as Find returns it.
	Path string
	// Root is runc's state directory (its --root) and ID the container in it.
	Root, ID string
	// Pins of the container.
	Pins *Pins
	// Images is the directory for the images. It must exist and be empty, but for
	// what KeepPages leaves if Reserve is set.
	Images string
	// Reserve makes room in memory for the images of the container's before the
	// freeze. It needs Features.Patched: a stock CRIU throws that memory away while
	// tasks are frozen.
	Reserve bool
	// Previous, if set, is the directory of the last checkpoint's images, which
	// tells Reserve about memory that processes share.
	Previous string
	// ReserveMax is how much memory Reserve may take in all, in bytes. A file that
	// would exceed it gets none. 0: there is no limit.
	ReserveMax int64
	// Kerndat is the file of that name that Probe wrote. Without it CRIU takes
	// longer to start, and can't dump processes of other users than root if
	// CAP_SYS_RESOURCE is missing.
	Kerndat string
	// LogLevel of CRIU, 1 (errors) to 4. 0 is 1: every line costs frozen time.
	LogLevel int
	// GhostLimit is the largest deleted but open file that is put into the
	// images, in bytes. 0 is DefaultGhostLimit. A larger one fails the dump.
	GhostLimit uint32
	// PreDump copies memory ahead of the freeze, and in it only what was written
	// to since. It needs Features.MemTrack, and pays for large containers: each
	// of at least two rounds stops the tasks for some milliseconds. The images
	// are the same as without; while they are made they need twice the room.
	PreDump bool
	// Urgent lets CRIU run before all ordinary processes of the host while tasks
	// are frozen. It is for dumps of which the size is known to be small.
	Urgent bool
	// LetSleep lets idle processors sleep while tasks are frozen, as they do for
	// dumps that are not Urgent. Every turn between CRIU and a task then waits for
	// one to wake.
	LetSleep bool
	// Patience is how long CRIU may work, while tasks are frozen, without asking or
	// answering, before it is killed. What the hooks take does not count. 0: for ever.
	Patience time.Duration
	// OnPreDump, if set, is called when CRIU is started and warm, before the
	// tasks are frozen.
	OnPreDump func() error
	// OnFrozen, if set, is called when all tasks are frozen, on a goroutine of
	// its own beside CRIU's work: the place to capture writable layer and scratch
	// mounts. It has returned before OnPostDump is called, and before Dump
	// returns; if the dump fails meanwhile, the tasks may run before.
	OnFrozen func() error
	// OnPostDump, if set, is called when all that is in the images was read, while
	// the tasks are still frozen. A patched CRIU makes most images after it.
	OnPostDump func() error
	// Start runs the child; nil is os/exec. A process that reaps all its
	// children, like a shim, has to set it.
	Start StartFunc
}

// DefaultGhostLimit is the default of DumpOptions.GhostLimit.
const DefaultGhostLimit = 64 << 20

const (
	dumpLog = "dump.log"
	// descriptorsFile names what the init's standard descriptors were. Name and
	// format are runc's, so that runc can restore the images too.
	descriptorsFile = "descriptors.json"
)

func (o *DumpOptions) defaultsAndValidate() error {
	if o.Path == "" || o.Root == "" || o.ID == "" || o.Images == "" || o.Pins == nil {
		return errors.New("dump: Path, Root, ID, Images and Pins are required")
	}
	if o.LogLevel == 0 {
		o.LogLevel = 1
	}
	if o.GhostLimit == 0 {
		o.GhostLimit = DefaultGhostLimit
	}
	if o.Start == nil {
		o.Start = startChild
	}
	return nil
}

// Dump writes a checkpoint of the running container into images, and leaves the
// container running, also if it fails. A failure of CRIU is an *Error. When ctx
// ends, CRIU stops at its next question to us (before the freeze, or at its
// end), and the error is ErrCanceled.
//
// No other operation on the container (runc exec, update, pause, kill) may hold
// it half way while Dump runs; processes that come and go are no problem.
func Dump(ctx context.Context, o DumpOptions) (DumpStats, error) {
	d := dump{DumpOptions: o, begun: time.Now(), sleep: func() {}}
	defer func() { d.sleep() }()
	if err := d.defaultsAndValidate(); err != nil {
		return DumpStats{}, err
	}
	if err := context.Cause(ctx); err != nil {
		return DumpStats{}, fmt.Errorf("dump %s: %w: %w", o.ID, ErrCanceled, err)
	}
	if err := d.run(ctx); err != nil {
		return d.stats, fmt.Errorf("dump %s: %w", o.ID, err)
	}
	d.stats.Total = time.Since(d.begun)
	return d.stats, nil
}

// dump is one Dump under way.
type dump struct {
	DumpOptions
	stats  DumpStats
	begun  time.Time
	child  *swrk
	frozen time.Time // when the hook before the freeze returned
	sleep  func()    // lets processors sleep again
	// beside gives the result of what startBeside began; nil: there is none to
	// wait for. besides: it was begun.
	beside  <-chan error
	besides bool
	meta    meta
}

func (d *dump) run(ctx context.Context) error {
	state, err := loadState(d.Root, d.ID)
	if err != nil {
		return err
	}
	cgroups, err := state.cgroups()
	if err != nil {
		return err
	}
	if err := checkThawed(cgroups); err != nil {
		return err
	}
	pid, err := state.pid()
	if err != nil {
		return err
	}
	if err := d.writeDescriptors(state); err != nil {
		return err
	}
	if err := d.chooseNamespaces(); err != nil {
		return err
	}
	namespaces, err := d.Pins.paths(&d.meta)
	if err != nil {
		return err
	}
	var as owner
	// The kernel gives who made a user namespace every right in it, also that to
	// be told the limits of its processes.
	if d.meta.IDMaps = d.Pins.IDMaps; d.meta.IDMaps == nil {
		if as, err = ownerOf(pid); err != nil {
			return err
		}
	}
	dir, err := os.Open(d.Images)
	if err != nil {
		return err
	}
	defer dir.Close()
	sp := spawn{path: d.Path, namespaces: namespaces, owner: as, kerndat: d.Kerndat, start: d.Start, patience: d.Patience}
	req := d.request(pid, dir)
	if d.PreDump {
		parent := ""
		if parent, d.stats.PreDumpError = d.preDump(ctx, sp, pid); parent != "" {
			req.Opts.TrackMem, req.Opts.ParentImg = proto.Bool(true), proto.String(parent)
		}
	}
	if d.child, err = sp.run(); err != nil {
		return err
	}
	if d.Reserve {
		if err := reserve(d.Images, pid, d.Previous, d.ReserveMax); err != nil {
			return errors.Join(err, d.child.abandon())
		}
	}
	if err := d.serve(ctx, req, pid, cgroups); err != nil {
		return d.Pins.blame(pid, explain("dump", filepath.Join(d.Images, dumpLog), err))
	}
	d.stats.Thaw = time.Since(d.frozen) - d.stats.Dump - d.stats.PostDump
	if err := d.join(); err != nil {
		return err
	}
	if d.meta.IDMaps != nil {
		if err := leaveUserNamespace(d.Images); err != nil {
			return err
		}
	}
	if err := d.meta.write(d.Images); err != nil {
		return err
	}
	return d.stats.load(os.DirFS(d.Images))
}

// serve sees CRIU through the dump, and mends what it left if it dies.
func (d *dump) serve(ctx context.Context, req *rpc.CriuReq, pid int, cgroups []string) error {
	tasks, err := cgroupPids(cgroups[0])
	if err != nil {
		return errors.Join(err, d.child.abandon())
	}
	w := &watch{init: pid, tasks: tasks, kill: d.child.kill}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		w.run(stop)
	}()
	torn := false
	var freezeErr error
	d.child.onDeath = func() {
		if torn = !w.died.Load(); torn {
			freezeErr = freeze(cgroups, true)
		}
	}
	var guard *sentinel
	if d.Urgent {
		if guard, err = guardDump(d.child.conn, cgroups); err != nil {
			close(stop)
			<-stopped
			return errors.Join(err, d.child.abandon())
		}
		d.child.onAnswer = func() {
			guard.answered()
			d.sleep()
		}
	}
	_, err = d.child.call(ctx, req, d.notify)
	err = errors.Join(err, d.awaitBeside()) // if CRIU has not come so far
	close(stop)
	<-stopped
	if guard != nil && guard.leave() && !torn {
		err = errors.Join(err, freeze(cgroups, false))
	}
	if torn {
		err = fmt.Errorf("%w: %w", ErrTorn, errors.Join(err, freezeErr, cure(cgroups), freeze(cgroups, false)))
	}
	if err != nil && w.died.Load() {
		return fmt.Errorf("%w: %w", ErrDied, err)
	}
	return err
}

// join makes the images whole that refer to those of pre-dumps.
func (d *dump) join() error {
	var rounds []string
	for n := len(d.stats.Rounds); n > 0; n-- {
		rounds = append(rounds, roundDir(n))
	}
	if len(rounds) == 0 || d.stats.PreDumpError != nil {
		return nil
	}
	return flatten(d.Images, rounds)
}

// chooseNamespaces decides which namespaces stay out of the images. A private
// IPC namespace with System V objects must go in, for they have to be rolled
// back with the memory.
func (d *dump) chooseNamespaces() error {
	for _, ns := range d.Pins.Namespaces {
		if ns.Type == specs.IPCNamespace && ns.Private {
			used, err := hasSysV(ns.Path)
			if err != nil {
				return err
			}
			if used {
				continue
			}
		}
		d.meta.Namespaces = append(d.meta.Namespaces, ns.Type)
	}
	return nil
}

// settle reads what is not in CRIU's images, while the tasks are frozen. It writes
// to meta.
func (d *dump) settle() error {
	var paths []string
	ipc, uts := d.Pins.namespace(specs.IPCNamespace), d.Pins.namespace(specs.UTSNamespace)
	ipc.Private = ipc.Private && d.meta.has(ipc.Type)
	for _, ns := range []PinnedNamespace{ipc, uts} {
		if ns.Private {
			paths = append(paths, ns.Path)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	return onThread(func() error {
		if err := enter(paths); err != nil {
			return err
		}
		if uts.Private {
			if err := d.meta.readHostname(); err != nil {
				return err
			}
		}
		if ipc.Private {
			return eachSysV(func(func() error) error { return ErrBusy })
		}
		return nil
	})
}

func (d *dump) writeDescriptors(state *runcState) error {
	names, err := state.stdio()
	if err != nil {
		return err
	}
	b, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.Images, descriptorsFile), b, 0o600)
}

func (d *dump) request(pid int, dir *os.File) *rpc.CriuReq {
	opts := &rpc.CriuOpts{
		ImagesDirFd:   proto.Int32(int32(dir.Fd())),
		LogLevel:      proto.Int32(int32(d.LogLevel)),
		LogFile:       proto.String(dumpLog),
		NotifyScripts: proto.Bool(true),
		Pid:           proto.Int32(int32(pid)),
		LeaveRunning:  proto.Bool(true),
		// Connections that an application has not accepted yet make a dump
		// fail otherwise.
		TcpEstablished:  proto.Bool(true),
		TcpSkipInFlight: proto.Bool(true),
		// The cut is read from the images: nothing has to be kept from
		// arriving, and CRIU's own locks fork and may stay behind.
		NetworkLock: rpc.CriuNetworkLockMethod_SKIP.Enum(),
		// The cgroups outlive the init. Dumping them costs 11 ms frozen.
		ManageCgroups:     proto.Bool(false),
		ManageCgroupsMode: rpc.CriuCgMode_IGNORE.Enum(),
		ExtUnixSk:         proto.Bool(true),
		FileLocks:         proto.Bool(true),
		OrphanPtsMaster:   proto.Bool(true),
		GhostLimit:        proto.Uint32(d.GhostLimit),
		// Seconds to stop all tasks in, which takes under a millisecond. CRIU
		// would try for 10 s, with those stopped that it has.
		Timeout: proto.Uint32(2),
		// No FreezeCgroup: CRIU polls it in steps of 100 ms (seize.c).
	}
	for _, m := range d.Pins.Mounts {
		opts.ExtMnt = append(opts.ExtMnt, &rpc.ExtMountMap{Key: proto.String(m.Container), Val: proto.String(m.Container)})
	}
	return &rpc.CriuReq{Type: rpc.CriuReqType_DUMP.Enum(), Opts: opts}
}

func (d *dump) notify(script string, _ int, files []*os.File) error {
	closeAll(files)
	switch script {
	case "pre-dump":
		d.stats.Start = time.Since(d.begun)
		begun := time.Now()
		err := hook(script, d.OnPreDump)
		if err == nil && d.Urgent {
			if !d.LetSleep {
				d.sleep = stayAwake()
			}
			err = hasten(d.child.proc.Pid)
		}
		d.frozen = time.Now()
		d.stats.PreDump = d.frozen.Sub(begun)
		return err
	case "query-ext-files":
		// CRIU asks this one right after the freeze (cr_dump_tasks of its
		// criu/cr-dump.c), whether there are such files or not.
		d.startBeside()
	case "post-dump":
		begun := time.Now()
		d.stats.Dump = begun.Sub(d.frozen)
		if !d.besides {
			d.startBeside()
		}
		err := d.awaitBeside()
		if err == nil {
			err = hook(script, d.OnPostDump)
		}
		d.stats.PostDump = time.Since(begun)
		return err
	}
	return nil
}

// startBeside begins what needs frozen tasks, and nothing of CRIU.
func (d *dump) startBeside() {
	done := make(chan error, 1)
	d.beside, d.besides = done, true
	go func() {
		err := d.settle()
		if err == nil {
			err = hook("frozen", d.OnFrozen)
		}
		done <- err
	}()
}

// awaitBeside waits for that, and returns its error once.
func (d *dump) awaitBeside() error {
	if d.beside == nil {
		return nil
	}
	err := <-d.beside
	d.beside = nil
	return err
}

func hook(name string, fn func() error) error {
	if fn == nil {
		return nil
	}
	if err := fn(); err != nil {
		return fmt.Errorf("%s: %w: %w", name, ErrHook, err)
	}
	return nil
}

// explain makes an *Error of CRIU's failure, unless it was us who refused.
func explain(op, logFile string, err error) error {
	for _, ours := range []error{ErrHook, ErrCanceled, ErrWrongNamespace, ErrBusy} {
		if errors.Is(err, ours) {
			return err
		}
	}
	b, rerr := os.ReadFile(logFile)
	if rerr != nil {
		b = []byte(rerr.Error())
	}
	return &Error{Op: op, Line: DecisiveLine(string(b)), Log: string(b), Err: err}
}
