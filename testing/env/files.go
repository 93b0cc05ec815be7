package env

import (
	"context"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// runWithFiles is Run for a container that may open more files than ctr lets it,
// which are 1,024. It has no ctr flags.
func (e *Env) runWithFiles(ctx context.Context, c Container) error {
	client, err := containerd.New(e.Address)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx = namespaces.WithNamespace(ctx, e.Namespace)
	image, err := client.GetImage(ctx, c.Image)
	if err != nil {
		return err
	}
	opts := []oci.SpecOpts{
		oci.WithDefaultSpec(), oci.WithImageConfigArgs(image, c.Args), oci.WithAnnotations(c.Annotations),
		func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: c.Files, Soft: c.Files}}
			return nil
		},
	}
	if c.Netns != "" {
		opts = append(opts, oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.Netns}))
	}
	made, err := client.NewContainer(ctx, c.ID, containerd.WithImage(image), containerd.WithNewSnapshot(c.ID, image),
		containerd.WithRuntime(c.Runtime, nil), containerd.WithNewSpec(opts...))
	if err != nil {
		return err
	}
	task, err := made.NewTask(ctx, cio.LogFile(e.ContainerLog(c.ID)))
	if err != nil {
		return err
	}
	return task.Start(ctx)
}
