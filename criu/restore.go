package criu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// RestoreOptions says what to restore from where.
type RestoreOptions struct {
	// Path of the CRIU binary, as Find returns it.
	Path string
	// Root is runc's state directory (its --root) and ID the container in it.
	// The container must be stopped and must not have been deleted: its
	// record and its cgroups are used again.
	Root, ID string
	// Rootfs is the container's root file system, rolled back to the
	// checkpoint and mounted.
	Rootfs string
	// Pins of the container, with the scratch mounts rolled back.
	Pins *Pins
	// Images is the directory of a checkpoint that Dump wrote. The log goes
	// there too.
	Images string
	// Stdio takes the place of those standard descriptors of the init that
	// were pipes; the others are restored as what they were. The files are
	// duplicated and stay the caller's.
	Stdio [3]*os.File
	// Kerndat is the file of that name that Probe wrote. It is required for a
	// container with a user namespace, inside which CRIU can't ask the kernel.
	Kerndat string
	// LogLevel of CRIU, 1 (errors) to 4. 0 is 1.
	LogLevel int
	// Moved: the images are another container's, from another place. The names in
	// the UTS namespace stay what they are, and who the users of a user namespace
	// are on the host is the container's affair.
	Moved bool
	// Unconnected restores connections as closed ones, for when their other ends
	// are not there: reads and writes fail, and poll reports a hang-up.
	Unconnected bool
	// Ceiling bounds what the processes get from the images; nil: nothing does.
	Ceiling *Ceiling
	// OnConsole receives the new master of a container with a terminal, and
	// owns it. It is required for such a container. The terminal is unlocked; its
	// settings are the restored ones when OnPostRestore is called.
	OnConsole func(master *os.File) error
	// OnPostRestore, if set, is called when the processes are complete and do
	// not run yet. An error kills them.
	OnPostRestore func(pid int) error
	// OnResume, if set, is called as soon as the processes run, a little
	// before Restore returns.
	OnResume func(pid int)
	// Start runs the child; nil is os/exec. See DumpOptions.
	Start StartFunc
}

const (
	restoreLog = "restore.log"
	// rootDir is where the root file system is bound for CRIU, below the pins:
	// CRIU wants a mount whose parent is not mounted over.
	rootDir = "root"
)

func (o *RestoreOptions) defaultsAndValidate() error {
	if o.Path == "" || o.Root == "" || o.ID == "" || o.Rootfs == "" || o.Images == "" || o.Pins == nil {
		return errors.New("restore: Path, Root, ID, Rootfs, Images and Pins are required")
	}
	if o.LogLevel == 0 {
		o.LogLevel = 1
	}
	if o.Start == nil {
		o.Start = startChild
	}
	return nil
}

// Restore starts the processes of a checkpoint in place of the container's dead
// ones: same runc container, cgroups, namespaces and mounts. It returns the
// process ID of the init, which is a child of the calling process: the caller
// has to wait for it. All commands of runc work on the container afterwards;
// none is needed before, `runc delete` least of all.
//
// When it fails, for whatever reason, no process of the container is left, and
// Restore may be called again, also with other images. A failure of CRIU is an
// *Error.
//
// It is Arm and Armed.Restore in one; a caller who has time before the crash
// saves most of it by calling Arm then.
func Restore(ctx context.Context, o RestoreOptions) (pid int, stats RestoreStats, err error) {
	a, err := Arm(ctx, o)
	if err != nil {
		return 0, RestoreStats{}, err
	}
	return a.Restore(ctx)
}

// restore is one restore under way.
type restore struct {
	RestoreOptions
	stats   RestoreStats
	mark    time.Time // end of the previous phase
	state   *runcState
	cgroups []string
	scope   *scope // nil: systemd has no part in them
	meta    *meta
	inside  *inside  // where CRIU runs, if the container has a user namespace
	was     []string // what the standard descriptors were at the dump
	pid     int
}

// lap returns the time since the previous lap.
func (r *restore) lap() time.Duration {
	now := time.Now()
	d := now.Sub(r.mark)
	r.mark = now
	return d
}

// load reads what Dump wrote beside CRIU's images.
func (r *restore) load() (err error) {
	if err := validatePages(os.DirFS(r.Images)); err != nil {
		return err
	}
	if r.meta, err = readMeta(os.DirFS(r.Images)); err != nil {
		return err
	}
	fits := r.meta.IDMaps.Same
	if r.Moved {
		fits = r.meta.IDMaps.Alike // in the images are the container's own IDs
	}
	if !fits(r.Pins.IDMaps) || r.meta.has(specs.UserNamespace) != (r.Pins.IDMaps != nil) {
		return fmt.Errorf("%w: the users of the checkpoint's user namespace are not those of the container's (%v, %v)", ErrUnsupported, r.meta.IDMaps, r.Pins.IDMaps)
	}
	b, err := os.ReadFile(filepath.Join(r.Images, descriptorsFile))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &r.was); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, descriptorsFile, err)
	}
	if len(r.was) > len(r.Stdio) {
		return fmt.Errorf("%w: %s: %d descriptors", ErrCorrupt, descriptorsFile, len(r.was))
	}
	for i, name := range r.was {
		if isPipe(name) && r.Stdio[i] == nil {
			return fmt.Errorf("standard descriptor %d was a pipe, and there is none to put in its place", i)
		}
	}
	return nil
}

// loadState reads runc's record of the container.
func (r *restore) loadState() (err error) {
	if r.state, err = loadState(r.Root, r.ID); err != nil {
		return err
	}
	if r.scope, err = r.state.scope(); err != nil {
		return err
	}
	if err := r.findCgroups(); err != nil && (r.scope == nil || !errors.Is(err, ErrUnsupported)) {
		return err
	}
	return nil
}

func (r *restore) findCgroups() (err error) {
	if r.cgroups, err = r.state.cgroups(); err != nil {
		return err
	}
	if len(r.cgroups) == 0 {
		return fmt.Errorf("%w: the container has no cgroup any more", ErrUnsupported)
	}
	return nil
}

// checkDead returns an error if the container still has processes, or would
// not let new ones run.
func (r *restore) checkDead() error {
	if err := checkThawed(r.cgroups); err != nil {
		return err
	}
	for _, dir := range r.cgroups {
		pids, err := cgroupPids(dir)
		if errors.Is(err, os.ErrNotExist) && r.scope != nil {
			continue // systemd removes them just now
		}
		if err != nil {
			return err
		}
		if len(pids) > 0 {
			return fmt.Errorf("%w: process %d", ErrRunning, pids[0])
		}
		break // the processes are the same ones in all
	}
	return nil
}

// resetNamespaces undoes what was changed in the pinned namespaces after the
// checkpoint and is not part of the images.
func (r *restore) resetNamespaces() error {
	ipc, uts := r.Pins.namespace(specs.IPCNamespace), r.Pins.namespace(specs.UTSNamespace)
	return onThread(func() error {
		if ipc.Private && r.meta.has(ipc.Type) {
			if err := enter([]string{ipc.Path}); err != nil {
				return err
			}
			// There was no such object at the dump.
			if err := eachSysV(func(remove func() error) error { return remove() }); err != nil {
				return err
			}
		}
		if uts.Private && r.meta.has(uts.Type) && !r.Moved {
			if err := enter([]string{uts.Path}); err != nil {
				return err
			}
			return r.meta.writeHostname()
		}
		return nil
	})
}

func isPipe(name string) bool { return strings.HasPrefix(name, "pipe:[") }

func (r *restore) mountRoot(child int) (unmount func(), err error) {
	if r.inside != nil {
		return func() {}, r.inside.mountRoot(child, r.Rootfs) // it ends with CRIU
	}
	root := filepath.Join(r.Pins.Dir, rootDir)
	if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	unmount = func() {
		for unix.Unmount(root, unix.MNT_DETACH) == nil {
		}
		_ = os.Remove(root) // an empty directory that stays is no harm
	}
	// One may have been left by a process that was killed in here.
	for unix.Unmount(root, unix.MNT_DETACH) == nil {
	}
	if err := unix.Mount(r.Rootfs, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return nil, &os.PathError{Op: "bind", Path: r.Rootfs, Err: err}
	}
	return unmount, nil
}

func (r *restore) request(dir *os.File) *rpc.CriuReq {
	opts := &rpc.CriuOpts{
		ImagesDirFd:       proto.Int32(int32(dir.Fd())),
		LogLevel:          proto.Int32(int32(r.LogLevel)),
		LogFile:           proto.String(restoreLog),
		Root:              proto.String(r.inside.seen(filepath.Join(r.Pins.Dir, rootDir))),
		NotifyScripts:     proto.Bool(true),
		RstSibling:        proto.Bool(true), // a child of ours, not of CRIU's
		EvasiveDevices:    proto.Bool(true),
		TcpEstablished:    proto.Bool(!r.Unconnected),
		TcpClose:          proto.Bool(r.Unconnected),
		NetworkLock:       rpc.CriuNetworkLockMethod_SKIP.Enum(),
		ManageCgroups:     proto.Bool(false),
		ManageCgroupsMode: rpc.CriuCgMode_IGNORE.Enum(),
		ExtUnixSk:         proto.Bool(true),
		FileLocks:         proto.Bool(true),
		OrphanPtsMaster:   proto.Bool(true),
	}
	if r.inside != nil {
		// It may not look into our descriptors, and not set the size of a socket's
		// buffer beyond net.core.rmem_max and wmem_max.
		opts.ImagesDirFd, opts.ImagesDir = proto.Int32(-1), proto.String("/proc/self/fd/"+strconv.Itoa(insideImages))
		opts.Unprivileged = proto.Bool(true)
	}
	for _, m := range r.Pins.Mounts {
		opts.ExtMnt = append(opts.ExtMnt, &rpc.ExtMountMap{Key: proto.String(m.Container), Val: proto.String(r.inside.seen(m.Host))})
	}
	for i, name := range r.was {
		if isPipe(name) {
			opts.InheritFd = append(opts.InheritFd, &rpc.InheritFd{Key: proto.String(name), Fd: proto.Int32(int32(i))})
		}
	}
	return &rpc.CriuReq{Type: rpc.CriuReqType_RESTORE.Enum(), Opts: opts}
}

// notify serves CRIU's questions from the start of the restore proper on.
func (r *restore) notify(script string, pid int, files []*os.File) error {
	if script == "orphan-pts-master" && len(files) > 0 {
		master := files[0]
		closeAll(files[1:])
		if r.OnConsole == nil {
			master.Close()
			return fmt.Errorf("%s: %w: the container has a terminal and OnConsole is not set", script, ErrHook)
		}
		return hook(script, func() error { return r.OnConsole(master) })
	}
	closeAll(files)
	switch script {
	case "post-restore":
		r.stats.Restore = r.lap()
		r.pid = pid
		err := r.complete()
		r.stats.Check = r.lap()
		return err
	case "post-resume":
		r.stats.Resume = r.lap()
		s := &r.stats
		s.Total = s.Join + s.Prepare + s.Restore + s.Check + s.Resume
		if r.OnResume != nil {
			r.OnResume(r.pid)
		}
	}
	return nil
}

// complete checks the processes, which do not run yet, and makes them runc's.
func (r *restore) complete() error {
	if err := r.checkProcesses(); err != nil {
		return err
	}
	if err := r.Pins.allowLinks(r.pid); err != nil {
		return err
	}
	if err := r.repin(); err != nil {
		return err
	}
	names := slices.Clone(r.was)
	for i, name := range names {
		if !isPipe(name) {
			continue
		}
		link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(r.Stdio[i].Fd())))
		if err != nil {
			return err
		}
		names[i] = link
	}
	if err := r.state.adopt(r.pid, names); err != nil {
		return err
	}
	return hook("post-restore", func() error {
		if r.OnPostRestore == nil {
			return nil
		}
		return r.OnPostRestore(r.pid)
	})
}

// checkProcesses makes sure that every restored process is in each of the
// pinned namespaces, and below the ceiling. A restore that was not entered through them succeeds too,
// with the application in the host's.
func (r *restore) checkProcesses() error {
	pids, err := cgroupPids(r.cgroups[0])
	if err != nil {
		return err
	}
	seen := false
	for _, pid := range pids {
		seen = seen || pid == r.pid
		if pid != r.pid && !inPidNamespaceOf(pid, r.pid) {
			continue // CRIU itself is in these cgroups
		}
		if err := r.Ceiling.lower(pid); err != nil {
			return err
		}
		for _, ns := range r.Pins.Namespaces {
			if !r.meta.has(ns.Type) {
				continue
			}
			ok, err := sameFile(ns.Path, fmt.Sprintf("/proc/%d/ns/%s", pid, nsFile(ns.Type)))
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("%w: process %d, %s namespace", ErrWrongNamespace, pid, ns.Type)
			}
		}
	}
	if !seen {
		return fmt.Errorf("%w: the restored init %d is not in the container's cgroup", ErrUnsupported, r.pid)
	}
	return nil
}

// repin pins the namespaces that CRIU made afresh from the images.
func (r *restore) repin() error {
	for _, ns := range r.Pins.Namespaces {
		if !r.meta.has(ns.Type) {
			if err := ns.pin(r.pid); err != nil {
				return err
			}
		}
	}
	return nil
}

// clear kills what a failed restore left in the container's cgroups: all its
// own processes were dead before, so everything in there is CRIU's.
func (r *restore) clear() error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		pids, err := cgroupPids(r.cgroups[0])
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended meanwhile
			if pid == r.pid || isChild(pid) {
				// Without a reaper nobody else waits for it; with one, ECHILD.
				_, _ = unix.Wait4(pid, nil, 0, nil)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not die", pids)
		}
		time.Sleep(time.Millisecond)
	}
}
