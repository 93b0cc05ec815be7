package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	runc "github.com/containerd/go-runc"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

// startFresh starts the container from the beginning in its old network
// namespace, so that the whole journal can be replayed. Checkpoints end with
// the mounts of the dead container.
func (g *guard) startFresh(ctx context.Context, stdio *lifecycle.Stdio) (_ int, err error) {
	r := g.c.Runc()
	g.disarm()
	if err := r.Delete(ctx, g.c.ID(), &runc.DeleteOpts{Force: true}); err != nil {
		return 0, fmt.Errorf("remove the dead container: %w", err)
	}
	if err := g.store.drop(); err != nil {
		return 0, err
	}
	if err := errors.Join(g.pins.Close(), os.RemoveAll(g.pins.Dir)); err != nil {
		return 0, err
	}
	if err := g.keepNetNS(); err != nil {
		return 0, err
	}
	pidFile := filepath.Join(g.c.Bundle(), "init.pid")
	if err := stdio.Create(ctx, r, g.c.ID(), g.c.Bundle(), runc.CreateOpts{
		PidFile: pidFile, NoPivot: g.c.Options().NoPivotRoot, NoNewKeyring: g.c.Options().NoNewKeyring,
	}); err != nil {
		return 0, fmt.Errorf("create the container again: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Delete(context.WithoutCancel(ctx), g.c.ID(), &runc.DeleteOpts{Force: true}))
		}
	}()
	pid, err := runc.ReadPidFile(pidFile)
	if err != nil {
		return 0, err
	}
	if err := g.pin(pid); err != nil {
		return 0, err
	}
	return pid, r.Start(ctx, g.c.ID())
}

// keepNetNS makes the spec name the network namespace that the container has,
// where it asks for a new one.
func (g *guard) keepNetNS() error {
	spec, err := g.c.Spec()
	if err != nil {
		return err
	}
	for i := range spec.Linux.Namespaces {
		ns := &spec.Linux.Namespaces[i]
		if ns.Type == specs.NetworkNamespace && ns.Path == "" {
			ns.Path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), g.netns.Fd())
			return g.c.WriteSpec(spec)
		}
	}
	return nil
}
