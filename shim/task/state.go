package task

import (
	"context"

	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/containerd/v2/pkg/protobuf/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

// State describes a process.
func (s *Service) State(_ context.Context, r *api.StateRequest) (*api.StateResponse, error) {
	resp := &api.StateResponse{}
	return resp, s.do(r.ID, func(c *lifecycle.Container) error {
		p, err := c.State(r.ExecID)
		if err != nil {
			return err
		}
		resp.ID = p.ID
		resp.Bundle = c.Bundle()
		resp.Pid = uint32(p.Pid)
		resp.Status = status(p)
		resp.Stdin = p.Stdio.Stdin
		resp.Stdout = p.Stdio.Stdout
		resp.Stderr = p.Stdio.Stderr
		resp.Terminal = p.Stdio.Terminal
		resp.ExitStatus = uint32(p.Exit.Status)
		resp.ExitedAt = protobuf.ToTimestamp(p.Exit.At)
		return nil
	})
}

// status hides a recovery: to the daemon the task is running.
func status(p lifecycle.ProcessState) task.Status {
	if p.Pausing {
		return task.Status_PAUSING
	}
	switch p.Phase {
	case lifecycle.PhaseCreated:
		return task.Status_CREATED
	case lifecycle.PhaseRunning, lifecycle.PhaseRecovering:
		return task.Status_RUNNING
	case lifecycle.PhasePaused:
		return task.Status_PAUSED
	case lifecycle.PhaseStopped:
		return task.Status_STOPPED
	}
	return task.Status_UNKNOWN
}

// Pids lists the processes of the container, execs with their IDs.
func (s *Service) Pids(ctx context.Context, r *api.PidsRequest) (*api.PidsResponse, error) {
	resp := &api.PidsResponse{}
	return resp, s.do(r.ID, func(c *lifecycle.Container) error {
		infos, err := c.Pids(ctx)
		if err != nil {
			return err
		}
		for _, i := range infos {
			p := &task.ProcessInfo{Pid: uint32(i.Pid)}
			if i.ExecID != "" {
				if p.Info, err = typeurl.MarshalAnyToProto(&options.ProcessDetails{ExecID: i.ExecID}); err != nil {
					return err
				}
			}
			resp.Processes = append(resp.Processes, p)
		}
		return nil
	})
}

// Stats returns cgroup metrics.
func (s *Service) Stats(_ context.Context, r *api.StatsRequest) (*api.StatsResponse, error) {
	resp := &api.StatsResponse{}
	return resp, s.do(r.ID, func(c *lifecycle.Container) error {
		stats, err := c.Stats()
		if err != nil {
			return err
		}
		resp.Stats, err = typeurl.MarshalAnyToProto(stats)
		return err
	})
}

// Checkpoint dumps the container.
func (s *Service) Checkpoint(ctx context.Context, r *api.CheckpointTaskRequest) (*types.Empty, error) {
	return s.done(r.ID, func(c *lifecycle.Container) error {
		var o options.CheckpointOptions
		if r.Options != nil {
			if err := typeurl.UnmarshalTo(r.Options, &o); err != nil {
				return errdefs.ErrInvalidArgument.WithMessage(err.Error())
			}
		}
		return c.Checkpoint(ctx, lifecycle.CheckpointRequest{
			Path:                r.Path,
			WorkPath:            o.WorkPath,
			Exit:                o.Exit,
			OpenTCP:             o.OpenTcp,
			ExternalUnixSockets: o.ExternalUnixSockets,
			Terminal:            o.Terminal,
			FileLocks:           o.FileLocks,
			EmptyNamespaces:     o.EmptyNamespaces,
		})
	})
}
