package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
)

const redisPort = 6379

var (
	// ErrUnprotected is returned when a container that should be protected is
	// not.
	ErrUnprotected = errors.New("the container is not protected")
	// ErrNotRecovered is returned when a crash was not hidden.
	ErrNotRecovered = errors.New("the container was not recovered")
)

// ServerOptions say how to run a Redis.
type ServerOptions struct {
	ID      string
	Pod     string // name of its network namespace, which is made
	Runtime string // empty: the shim under test
	// Settings are crsc.io annotations without their prefix. With nil the
	// container is not protected.
	Settings map[string]string
	// Annotations are further ones, of others.
	Annotations map[string]string
	Files       uint64 // that it may open; 0: the default
}

// Server is a Redis in a container.
type Server struct {
	ID   string
	Pod  *env.Netns
	Addr netip.AddrPort
	rig  *Rig
}

// StartRedis returns when it serves, and is protected if it has settings.
func (r *Rig) StartRedis(ctx context.Context, o ServerOptions) (*Server, error) {
	pod, err := r.Env.MakePod(o.Pod)
	if err != nil {
		return nil, err
	}
	c := env.Container{ID: o.ID, Image: r.image, Runtime: o.Runtime, Netns: pod.Path, Annotations: o.annotations(), Files: o.Files}
	if err := r.Env.Run(ctx, c); err != nil {
		return nil, err
	}
	s := &Server{ID: o.ID, Pod: pod, Addr: netip.AddrPortFrom(pod.IP4, redisPort), rig: r}
	if err := r.AwaitRedis(ctx, s.Addr); err != nil {
		return nil, fmt.Errorf("container %s: %w", o.ID, err)
	}
	if o.Settings != nil {
		err = Until(ctx, s.Protected)
	}
	return s, err
}

func (o *ServerOptions) annotations() map[string]string {
	all := map[string]string{}
	maps.Copy(all, o.Annotations)
	for k, v := range o.Settings {
		all["crsc.io/"+k] = v
	}
	if o.Settings != nil {
		all["crsc.io/checkpoint-restore"] = "true"
	}
	return all
}

// AwaitRedis waits until a Redis answers at an address.
func (r *Rig) AwaitRedis(ctx context.Context, addr netip.AddrPort) error {
	return Until(ctx, func() error {
		c, err := r.DialRedis(addr)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Do("PING")
		return err
	})
}

// Remove kills the container and removes it.
func (s *Server) Remove(ctx context.Context) error { return s.rig.Env.DeleteContainer(ctx, s.ID) }

// Protected returns nil or ErrUnprotected with the reason.
func (s *Server) Protected() error {
	st, err := s.Status()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnprotected, err)
	}
	if !st.Protected {
		return fmt.Errorf("%w: %s", ErrUnprotected, st.Reason)
	}
	return nil
}

// AwaitContainer waits until a container runs, and is protected if it should be.
func (r *Rig) AwaitContainer(ctx context.Context, id string, protected bool) error {
	s := &Server{ID: id, rig: r}
	return Until(ctx, func() error {
		if protected {
			return s.Protected()
		}
		_, state, err := r.Env.Task(ctx, id)
		if err == nil && state != "RUNNING" {
			err = fmt.Errorf("container %s is %s", id, state)
		}
		return err
	})
}

// Status reads the file that the shim replaces atomically.
func (s *Server) Status() (*status.Status, error) {
	return status.Read(filepath.Dir(s.rig.Env.StatusFile(s.ID)))
}

// Crash is what became of one kill.
type Crash struct {
	Killed, Live time.Time
	status.Recovery
}

// Crash kills the init with SIGKILL and waits until the shim reports the
// container live. The error is ErrNotRecovered if it does not.
func (s *Server) Crash(ctx context.Context) (Crash, error) {
	before, err := s.Status()
	if err != nil {
		return Crash{}, err
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", before.Pid))
	if err != nil || !strings.Contains(string(groups), "/"+s.ID) {
		return Crash{}, fmt.Errorf("pid %d is not in the cgroup of container %s: %w", before.Pid, s.ID, err)
	}
	c := Crash{Killed: time.Now()}
	if err := syscall.Kill(before.Pid, syscall.SIGKILL); err != nil {
		return c, fmt.Errorf("kill %d: %w", before.Pid, err)
	}
	err = Until(ctx, func() error {
		st, err := s.Status()
		if err != nil {
			return err
		}
		if st.RecoveryCount <= before.RecoveryCount || st.Phase != "running" {
			return fmt.Errorf("%w: %s is %s %s", ErrNotRecovered, s.ID, st.Phase, st.Reason)
		}
		c.Recovery = st.Recoveries[len(st.Recoveries)-1]
		return nil
	})
	c.Live = time.Now()
	return c, err
}
