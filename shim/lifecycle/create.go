package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/stdio"
	runc "github.com/containerd/go-runc"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sync/semaphore"
)

// openLimit bounds the opening of the client's side of the standard streams.
const openLimit = 30 * time.Second

// CreateRequest describes a container to be created.
type CreateRequest struct {
	ID     string
	Bundle string
	// Rootfs are mounted at the bundle's rootfs, in order.
	Rootfs []mount.Mount
	Stdio  stdio.Stdio
	// Checkpoint and ParentCheckpoint are directories with CRIU images; the
	// container is restored from them when it is started.
	Checkpoint, ParentCheckpoint string
	// Options are the sender's runtime options; see ParseOptions.
	Options typeurl.Any
}

// Create mounts the root filesystem and makes the container with its init
// process, ready for Start.
//
// Errors: ErrContainerExists, ErrOptions, the guard factory's, and runc's.
func (s *Supervisor) Create(ctx context.Context, r CreateRequest) (_ *Container, retErr error) {
	if err := s.reserve(r.ID); err != nil {
		return nil, err
	}
	defer func() {
		if retErr != nil {
			s.remove(r.ID)
		}
	}()
	o, err := ParseOptions(r.Options)
	if err != nil {
		return nil, err
	}
	c, err := newContainer(s, r, o)
	if err != nil {
		return nil, err
	}
	if err := c.makeGuard(ctx, r); err != nil {
		return nil, err
	}
	if err := c.create(ctx, r); err != nil {
		if g := c.takeGuard(); g != nil {
			c.dropGuard(ctx, g)
		}
		return nil, errors.Join(err, c.unmount())
	}
	s.set(r.ID, c)
	return c, nil
}

func newContainer(s *Supervisor, r CreateRequest, o *options.Options) (*Container, error) {
	spec, err := readSpec(r.Bundle)
	if err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	c := &Container{
		id:          r.ID,
		bundle:      r.Bundle,
		mounts:      r.Rootfs,
		options:     o,
		runc:        newRunc(o, r.Bundle, s.namespace),
		s:           s,
		annotations: spec.Annotations,
		turn:        semaphore.NewWeighted(turns),
		sharedPIDs:  sharesPIDs(spec),
		init:        newProcess("", r.Stdio),
		execs:       make(map[string]*process),
	}
	if len(r.Rootfs) > 0 {
		c.rootfs = filepath.Join(r.Bundle, rootfsDir)
	}
	return c, nil
}

// makeGuard leaves a container that is created from somebody else's checkpoint
// unguarded: its guard would miss the beginning.
func (c *Container) makeGuard(ctx context.Context, r CreateRequest) error {
	if c.s.guards == nil {
		return nil
	}
	g, err := c.s.guards(ctx, c)
	if err != nil || g == nil {
		return err
	}
	if r.Checkpoint != "" {
		c.logger(ctx).Warn("unprotected: created from a checkpoint")
		return g.Close()
	}
	c.guard = g
	return nil
}

func (c *Container) create(ctx context.Context, r CreateRequest) error {
	if err := writeOptions(c.bundle, c.options); err != nil {
		return err
	}
	if err := c.mount(); err != nil {
		return err
	}
	if err := c.prepareGuard(ctx); err != nil {
		return err
	}
	launch := c.s.tracker.launch()
	defer launch.end()
	if r.Checkpoint != "" {
		if err := c.createFromCheckpoint(r); err != nil {
			return err
		}
	} else if err := c.createInit(ctx); err != nil {
		return err
	}
	c.s.events.send(&events.TaskCreate{
		ContainerID: c.id,
		Bundle:      c.bundle,
		Rootfs:      mount.ToProto(c.mounts),
		IO: &events.TaskIO{
			Stdin:    r.Stdio.Stdin,
			Stdout:   r.Stdio.Stdout,
			Stderr:   r.Stdio.Stderr,
			Terminal: r.Stdio.Terminal,
		},
		Checkpoint: r.Checkpoint,
		Pid:        uint32(c.Pid()),
	})
	pid := c.Pid()
	if pid == 0 {
		return nil
	}
	// An OOM may come as soon as the program runs.
	c.loadCgroup(ctx, pid)
	if err := c.guardCreated(ctx); err != nil {
		c.closeOOM()
		err = errors.Join(err, deleteRunc(context.WithoutCancel(ctx), c.runc, c.id, true))
		c.init.free()
		return err
	}
	if e, exited := launch.adopt(pid, owner{c, c.init}); exited {
		c.exited(c.init, e)
	}
	return nil
}

func (c *Container) mount() error {
	if c.rootfs == "" {
		return nil
	}
	if err := os.Mkdir(c.rootfs, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := MountAll(c.mounts, c.rootfs); err != nil {
		return fmt.Errorf("failed to mount rootfs component: %w", err)
	}
	return nil
}

// MountAll is mount.All for mounts that are needed again: that one writes the
// places of the moment into the options of an overlay with a map of users
// (prepareIDMappedOverlay of containerd's core/mount).
func MountAll(mounts []mount.Mount, target string) error {
	again := slices.Clone(mounts)
	for i := range again {
		again[i].Options = slices.Clone(again[i].Options)
	}
	return mount.All(again, target)
}

func (c *Container) unmount() error {
	if c.rootfs == "" {
		return nil
	}
	if err := mount.UnmountRecursive(c.rootfs, 0); err != nil {
		return fmt.Errorf("failed rootfs umount: %w", err)
	}
	return nil
}

// createInit runs `runc create` and connects the standard streams.
func (c *Container) createInit(ctx context.Context) (retErr error) {
	p := c.init
	o := &runc.CreateOpts{
		PidFile:      filepath.Join(c.bundle, pidFile),
		NoPivot:      c.options.NoPivotRoot,
		NoNewKeyring: c.options.NoNewKeyring,
	}
	io, err := c.prepareStdio(ctx, p, c.currentGuard() != nil)
	if err != nil {
		return err
	}
	defer io.close()
	o.IO = io.runcIO()
	if io.socket != nil {
		o.ConsoleSocket = io.socket
	}
	if err := c.runc.Create(ctx, c.id, c.bundle, o); err != nil {
		io.abandon()
		return runcError(c.runc, err, "OCI runtime create failed")
	}
	defer func() {
		if retErr != nil {
			io.abandon()
			// The request may have ended; what it made must go all the same.
			err := deleteRunc(context.WithoutCancel(ctx), c.runc, c.id, true)
			retErr = errors.Join(retErr, err)
		}
	}()
	if err := io.connect(ctx); err != nil {
		return err
	}
	pid, err := runc.ReadPidFile(o.PidFile)
	if err != nil {
		return fmt.Errorf("failed to retrieve OCI runtime container pid: %w", err)
	}
	c.mu.Lock()
	p.pid = pid
	c.mu.Unlock()
	return nil
}

// createFromCheckpoint leaves everything to the start.
func (c *Container) createFromCheckpoint(r CreateRequest) error {
	work := c.options.CriuWorkPath
	if work == "" {
		work = filepath.Join(c.bundle, workDir)
	}
	c.restoreFrom = &runc.RestoreOpts{
		CheckpointOpts: runc.CheckpointOpts{
			ImagePath:  r.Checkpoint,
			WorkDir:    work,
			ParentPath: r.ParentCheckpoint,
			// CRIU refuses images with connections otherwise.
			AllowOpenTCP: true,
		},
		PidFile:     filepath.Join(c.bundle, pidFile),
		NoPivot:     c.options.NoPivotRoot,
		Detach:      true,
		NoSubreaper: true,
	}
	return nil
}

// prepareGuard returns only what fails the creation.
func (c *Container) prepareGuard(ctx context.Context) error {
	g := c.currentGuard()
	if g == nil {
		return nil
	}
	err := g.Prepare(ctx, c)
	if err == nil || errors.Is(err, ErrRefused) {
		return err
	}
	c.logger(ctx).WithError(err).Error("unprotected: prepare")
	c.takeGuard()
	if err := g.Close(); err != nil {
		c.logger(ctx).WithError(err).Error("close guard")
	}
	return nil
}

// guardCreated returns only what fails the creation.
func (c *Container) guardCreated(ctx context.Context) error {
	g := c.currentGuard()
	if g == nil {
		return nil
	}
	err := g.Created(ctx, c)
	if err == nil || errors.Is(err, ErrRefused) {
		return err
	}
	c.logger(ctx).WithError(err).Error("unprotected: created")
	c.takeGuard()
	c.dropGuard(ctx, g)
	return nil
}

// dropGuard undoes what the guard did and closes it.
func (c *Container) dropGuard(ctx context.Context, g Guard) {
	ctx = context.WithoutCancel(ctx)
	if err := g.Deleted(ctx, c); err != nil {
		c.logger(ctx).WithError(err).Error("guard: clean up")
	}
	if err := g.Close(); err != nil {
		c.logger(ctx).WithError(err).Error("close guard")
	}
}
