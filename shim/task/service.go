package task

import (
	"context"
	"os"
	"syscall"

	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/containerd/v2/pkg/protobuf/types"
	"github.com/containerd/containerd/v2/pkg/stdio"
	"github.com/containerd/ttrpc"

	"github.com/crsc-io/crsc/shim/lifecycle"
)

var _ api.TTRPCTaskService = (*Service)(nil)

// Service answers the daemon's requests.
type Service struct {
	supervisor *lifecycle.Supervisor
	shutdown   func()
}

// New returns the service for the supervisor's containers. shutdown is called
// when the daemon asks an empty shim to end; it must not block.
func New(s *lifecycle.Supervisor, shutdown func()) *Service {
	return &Service{supervisor: s, shutdown: shutdown}
}

// RegisterTTRPC makes the server serve s.
func (s *Service) RegisterTTRPC(server *ttrpc.Server) error {
	api.RegisterTTRPCTaskService(server, s)
	return nil
}

// do runs fn on the container of that ID and maps its error to a gRPC code.
func (s *Service) do(id string, fn func(*lifecycle.Container) error) error {
	c, err := s.supervisor.Container(id)
	if err == nil {
		err = fn(c)
	}
	return toGRPC(err)
}

// done is do for requests that are answered with nothing.
func (s *Service) done(id string, fn func(*lifecycle.Container) error) (*types.Empty, error) {
	if err := s.do(id, fn); err != nil {
		return nil, err
	}
	return &types.Empty{}, nil
}

// Create mounts the root filesystem and makes the container.
func (s *Service) Create(ctx context.Context, r *api.CreateTaskRequest) (*api.CreateTaskResponse, error) {
	req := lifecycle.CreateRequest{
		ID:               r.ID,
		Bundle:           r.Bundle,
		Rootfs:           mount.FromProto(r.Rootfs),
		Stdio:            stdio.Stdio{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
		Checkpoint:       r.Checkpoint,
		ParentCheckpoint: r.ParentCheckpoint,
	}
	// A nil *Any in the interface would not be nil.
	if r.Options != nil {
		req.Options = r.Options
	}
	c, err := s.supervisor.Create(ctx, req)
	if err != nil {
		return nil, toGRPC(err)
	}
	return &api.CreateTaskResponse{Pid: uint32(c.Pid())}, nil
}

// Start starts init or an exec.
func (s *Service) Start(ctx context.Context, r *api.StartRequest) (*api.StartResponse, error) {
	resp := &api.StartResponse{}
	return resp, s.do(r.ID, func(c *lifecycle.Container) error {
		pid, err := c.Start(ctx, r.ExecID)
		resp.Pid = uint32(pid)
		return err
	})
}

// Delete deletes the container or an exec.
func (s *Service) Delete(ctx context.Context, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	resp := &api.DeleteResponse{}
	return resp, s.do(r.ID, func(c *lifecycle.Container) error {
		p, err := c.Delete(ctx, r.ExecID)
		if err != nil {
			return err
		}
		resp.Pid = uint32(p.Pid)
		resp.ExitStatus = uint32(p.Exit.Status)
		resp.ExitedAt = protobuf.ToTimestamp(p.Exit.At)
		return nil
	})
}

// Exec adds a process.
func (s *Service) Exec(ctx context.Context, r *api.ExecProcessRequest) (*types.Empty, error) {
	return s.done(r.ID, func(c *lifecycle.Container) error {
		io := stdio.Stdio{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal}
		return c.Exec(ctx, r.ExecID, r.Spec.GetValue(), io)
	})
}

// ResizePty sets a terminal's size.
func (s *Service) ResizePty(_ context.Context, r *api.ResizePtyRequest) (*types.Empty, error) {
	return s.done(r.ID, func(c *lifecycle.Container) error {
		return c.ResizePty(r.ExecID, r.Width, r.Height)
	})
}

// CloseIO closes stdin.
func (s *Service) CloseIO(_ context.Context, r *api.CloseIORequest) (*types.Empty, error) {
	return s.done(r.ID, func(c *lifecycle.Container) error { return c.CloseIO(r.ExecID) })
}

// Pause freezes the container.
func (s *Service) Pause(ctx context.Context, r *api.PauseRequest) (*types.Empty, error) {
	return s.done(r.ID, func(c *lifecycle.Container) error { return c.Pause(ctx) })
}

// Resume thaws the container.
func (s *Service) Resume(ctx context.Context, r *api.ResumeRequest) (*types.Empty, error) {
	return s.done(r.ID, func(c *lifecycle.Container) error { return c.Resume(ctx) })
}

// Kill sends a signal.
func (s *Service) Kill(ctx context.Context, r *api.KillRequest) (*types.Empty, error) {
	return s.done(r.ID, func(c *lifecycle.Container) error {
		return c.Kill(ctx, r.ExecID, syscall.Signal(r.Signal), r.All)
	})
}

// Update changes limits.
func (s *Service) Update(ctx context.Context, r *api.UpdateTaskRequest) (*types.Empty, error) {
	return s.done(r.ID, func(c *lifecycle.Container) error { return c.Update(ctx, r.Resources.GetValue()) })
}

// Wait waits for an exit.
func (s *Service) Wait(ctx context.Context, r *api.WaitRequest) (*api.WaitResponse, error) {
	resp := &api.WaitResponse{}
	return resp, s.do(r.ID, func(c *lifecycle.Container) error {
		e, err := c.Wait(ctx, r.ExecID)
		if err != nil {
			return err
		}
		resp.ExitStatus, resp.ExitedAt = uint32(e.Status), protobuf.ToTimestamp(e.At)
		return nil
	})
}

// Connect tells the PIDs of the shim and of init.
func (s *Service) Connect(_ context.Context, r *api.ConnectRequest) (*api.ConnectResponse, error) {
	resp := &api.ConnectResponse{ShimPid: uint32(os.Getpid())}
	// The daemon also connects to a shim whose container is not there yet.
	if c, err := s.supervisor.Container(r.ID); err == nil {
		resp.TaskPid = uint32(c.Pid())
	}
	return resp, nil
}

// Shutdown ends the shim if it has no container.
func (s *Service) Shutdown(context.Context, *api.ShutdownRequest) (*types.Empty, error) {
	if s.supervisor.Empty() {
		s.shutdown()
	}
	return &types.Empty{}, nil
}
