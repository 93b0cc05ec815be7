package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/atomicfile"
	runc "github.com/containerd/go-runc"
	"github.com/containerd/log"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Files in the bundle. The names are those of containerd's runc shim.
const (
	specFile    = "config.json"
	optionsFile = "options.json"
	runtimeFile = "runtime" // the runc binary's name, for older readers
	pidFile     = "init.pid"
	rootfsDir   = "rootfs"
	workDir     = "work"
)

// writeOptions leaves the options for Cleanup, which runs in another process.
func writeOptions(bundle string, o *options.Options) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bundle, optionsFile), data, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, runtimeFile), []byte(o.BinaryName), 0o600)
}

// readOptions returns empty options if none were written.
func readOptions(bundle string) (*options.Options, error) {
	o := &options.Options{}
	data, err := os.ReadFile(filepath.Join(bundle, optionsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, o); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(bundle, optionsFile), err)
	}
	return o, nil
}

func readSpec(bundle string) (*specs.Spec, error) {
	data, err := os.ReadFile(filepath.Join(bundle, specFile))
	if err != nil {
		return nil, err
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(bundle, specFile), err)
	}
	return &s, nil
}

// writeSpec replaces the bundle's spec in one step.
func writeSpec(bundle string, s *specs.Spec) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := atomicfile.New(filepath.Join(bundle, specFile), 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Cancel())
	}
	return f.Close()
}

// sharesPIDs says that the container has no PID namespace of its own: the
// death of init does not end its other processes.
func sharesPIDs(s *specs.Spec) bool {
	if s.Linux != nil {
		for _, ns := range s.Linux.Namespaces {
			if ns.Type == specs.PIDNamespace && ns.Path == "" {
				return false
			}
		}
	}
	return true
}

// Cleanup removes what a container left behind whose shim is gone: processes
// and runc state, and the mounts of its root filesystem. It returns the PID
// that init had, 0 if that is not known.
//
// Errors: only if the bundle's options can't be read; the rest is logged.
func Cleanup(ctx context.Context, id, namespace, bundle string) (int, error) {
	o, err := readOptions(bundle)
	if err != nil {
		return 0, err
	}
	r := newRunc(o, bundle, namespace)
	if err := r.Delete(ctx, id, &runc.DeleteOpts{Force: true}); err != nil {
		log.G(ctx).WithError(err).Warn("failed to remove runc container")
	}
	if err := mount.UnmountRecursive(filepath.Join(bundle, rootfsDir), 0); err != nil {
		log.G(ctx).WithError(err).Warn("failed to cleanup rootfs mount")
	}
	pid, err := runc.ReadPidFile(filepath.Join(bundle, pidFile))
	if err != nil {
		log.G(ctx).WithError(err).Warn("failed to read init pid file")
	}
	return pid, nil
}
