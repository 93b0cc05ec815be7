package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

var _ shim.Manager = Manager{}

// Manager answers the actions that containerd starts the shim's binary for.
type Manager struct{}

// Name of the runtime.
func (Manager) Name() string { return RuntimeName }

// Start makes the socket of the container's group and a process that serves
// it, or returns the address of the group's process if there is one. It is
// called with the bundle as the working directory.
//
// The answer is that of containerd 2.0 (JSON, version 3): newer daemons read it
// too.
func (Manager) Start(ctx context.Context, id string, o shim.StartOpts) (shim.BootstrapParams, error) {
	params := shim.BootstrapParams{Version: 3, Protocol: "ttrpc"}
	group, err := readGroup(id)
	if err != nil {
		return params, err
	}
	params.Address, err = launch(ctx, id, group, o)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return params, nil
	}
	return params, err
}

// Stop removes what is left of a container whose shim is gone; of a pod's sandbox
// also what is left of the pod's containers.
func (Manager) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return shim.StopStatus{}, err
	}
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return shim.StopStatus{}, err
	}
	// A group's shim runs in the bundle of its first container.
	bundle := filepath.Join(filepath.Dir(cwd), id)
	pid, failed := lifecycle.Cleanup(ctx, id, ns, bundle)
	if err := cleanupGuard(ctx, ns, id, bundle); err != nil {
		log.G(ctx).WithError(err).Warn("failed to clean up after the guard")
	}
	if err := cleanupPod(ctx, ns, id, bundle); err != nil {
		log.G(ctx).WithError(err).Warn("failed to clean up after the pod's containers")
	}
	if failed != nil {
		return shim.StopStatus{}, failed
	}
	return shim.StopStatus{
		Pid:        pid,
		ExitStatus: 128 + int(syscall.SIGKILL),
		ExitedAt:   time.Now(),
	}, nil
}

// Info tells containerd about the runtime: its version, options and, if runc
// knows them, its features.
func (Manager) Info(ctx context.Context, optionsR io.Reader) (*types.RuntimeInfo, error) {
	info := &types.RuntimeInfo{
		Name:    RuntimeName,
		Version: &types.RuntimeVersion{Version: version.Version, Revision: version.Revision},
	}
	in, err := readStartInput(optionsR)
	if err != nil {
		return nil, err
	}
	if in.given {
		if info.Options, err = typeurl.MarshalAnyToProto(in.options); err != nil {
			return nil, fmt.Errorf("marshal options: %w", err)
		}
	}
	features, err := (&runc.Runc{Command: in.options.BinaryName}).Features(ctx)
	if err != nil {
		// A runc without this command serves all the same.
		log.G(ctx).WithError(err).Debug("no runtime features")
		return info, nil
	}
	if info.Features, err = typeurl.MarshalAnyToProto(features); err != nil {
		return nil, fmt.Errorf("marshal features: %w", err)
	}
	return info, nil
}
