package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/shim/internal/shimtest"
)

// TestParity has what ctr has no flags for, with both shims. User namespaces,
// reopened logs and the mounts of volumes are among the specs of testing/critest.
func TestParity(t *testing.T) {
	d := startDaemon(t)
	for _, runtime := range []string{ours, stock} {
		for i, s := range []struct {
			name string
			run  func(t *testing.T, p *parity)
		}{
			{"resize", testResize},
			{"hooks", testHooks},
			{"shared pid namespace", testSharedPID},
			{"rootfs propagation", testPropagation},
			{"update", testUpdate},
			{"systemd cgroups", testSystemdCgroup},
		} {
			t.Run(runtime+"/"+s.name, func(t *testing.T) {
				s.run(t, newParity(t, d.For(t), runtime, fmt.Sprintf("p-%s-%d", strings.Split(runtime, ".")[2], i)))
			})
		}
	}
}

// parity makes containers with containerd's client.
type parity struct {
	t       *testing.T
	d       *shimtest.Daemon
	c       *client.Client
	ctx     context.Context
	runtime string
	id      string
}

func newParity(t *testing.T, d *shimtest.Daemon, runtime, id string) *parity {
	c, err := client.New(d.Address())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), d.Namespace), time.Minute)
	t.Cleanup(cancel)
	return &parity{t, d, c, ctx, runtime, id}
}

// task creates a container with a task that is removed at the end.
func (p *parity) task(id string, io cio.Creator, args []string, opts ...oci.SpecOpts) client.Task {
	p.t.Helper()
	task, err := p.tryTask(id, io, args, opts...)
	require.NoError(p.t, err)
	return task
}

func (p *parity) tryTask(id string, io cio.Creator, args []string, opts ...oci.SpecOpts) (client.Task, error) {
	p.t.Helper()
	image, err := p.c.GetImage(p.ctx, shimtest.Image)
	require.NoError(p.t, err)
	opts = append([]oci.SpecOpts{oci.WithDefaultSpec(), oci.WithImageConfig(image), oci.WithProcessArgs(args...)}, opts...)
	c, err := p.c.NewContainer(p.ctx, id, client.WithImage(image), client.WithNewSnapshot(id, image),
		client.WithRuntime(p.runtime, nil), client.WithNewSpec(opts...))
	require.NoError(p.t, err)
	p.t.Cleanup(func() { require.NoError(p.t, c.Delete(p.ctx, client.WithSnapshotCleanup)) })
	task, err := c.NewTask(p.ctx, io)
	if err != nil {
		return nil, err
	}
	p.t.Cleanup(func() { _, _ = task.Delete(p.ctx, client.WithProcessKill) })
	return task, nil
}

// run runs a container to its end, and returns its output.
func (p *parity) run(id string, args []string, opts ...oci.SpecOpts) string {
	p.t.Helper()
	var out shimtest.Buffer
	task := p.task(id, cio.NewCreator(cio.WithStreams(nil, &out, &out)), args, opts...)
	exited, err := task.Wait(p.ctx)
	require.NoError(p.t, err)
	require.NoError(p.t, task.Start(p.ctx))
	status := <-exited
	code, _, err := status.Result()
	require.NoError(p.t, err)
	_, err = task.Delete(p.ctx)
	require.NoError(p.t, err)
	require.Zero(p.t, code, out.String())
	return out.String()
}

func (p *parity) exec(task client.Task, terminal bool, io cio.Creator, args ...string) client.Process {
	p.t.Helper()
	proc := specs.Process{Args: args, Cwd: "/", Terminal: terminal, Env: []string{"PATH=/bin:/usr/bin"}}
	x, err := task.Exec(p.ctx, fmt.Sprintf("x%d", time.Now().UnixNano()), &proc, io)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _, _ = x.Delete(p.ctx, client.WithProcessKill) })
	return x
}

// testResize: the terminals of init and of an exec get the size that is asked
// for.
func testResize(t *testing.T, p *parity) {
	check := func(x client.Process, out *shimtest.Buffer) {
		require.NoError(t, x.Resize(p.ctx, 123, 45))
		shimtest.Eventually(t, "the new size", func() bool { return strings.Contains(out.String(), "45 123") })
	}
	loop := []string{"sh", "-c", "while :; do stty size; sleep 0.05; done"}
	var first, second shimtest.Buffer
	task := p.task(p.id, cio.NewCreator(cio.WithStreams(nil, &first, nil), cio.WithTerminal), loop, oci.WithTTY)
	require.NoError(t, task.Start(p.ctx))
	check(task, &first)
	x := p.exec(task, true, cio.NewCreator(cio.WithStreams(nil, &second, nil), cio.WithTerminal), loop...)
	require.NoError(t, x.Start(p.ctx))
	check(x, &second)
}

// testHooks: each OCI hook runs once, in its turn, with the container's state.
func testHooks(t *testing.T, p *parity) {
	file := filepath.Join(t.TempDir(), "hooks")
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "grep -q '" + p.id + "' && echo " + name + " >>" + file}}}
	}
	p.run(p.id, []string{"true"}, func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		s.Hooks = &specs.Hooks{
			CreateRuntime: hook("createRuntime"), Poststart: hook("poststart"), Poststop: hook("poststop"),
		}
		return nil
	})
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "createRuntime\npoststart\npoststop\n", string(got))
}

// testSharedPID: a container in the PID namespace of another sees it, and its
// own end leaves the other alone.
func testSharedPID(t *testing.T, p *parity) {
	first := p.task(p.id, cio.NullIO, []string{"sleep", "1234"})
	require.NoError(t, first.Start(p.ctx))
	out := p.run(p.id+"-b", []string{"sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '"},
		oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.PIDNamespace, Path: fmt.Sprintf("/proc/%d/ns/pid", first.Pid())}))
	require.Contains(t, out, "sleep 1234")
	status, err := first.Status(p.ctx)
	require.NoError(t, err)
	require.Equal(t, client.Running, status.Status)
}

func testPropagation(t *testing.T, p *parity) {
	for i, mode := range []string{"private", "slave", "shared"} {
		out := p.run(fmt.Sprintf("%s-%d", p.id, i), []string{"sh", "-c", "grep ' / / ' /proc/self/mountinfo"},
			func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
				s.Linux.RootfsPropagation = mode
				return nil
			})
		require.Equal(t, mode == "shared", strings.Contains(out, "shared:"), "%s: %s", mode, out)
	}
}

// testUpdate changes the limits of a running container.
func testUpdate(t *testing.T, p *parity) {
	task := p.task(p.id, cio.NullIO, []string{"sleep", "1000"}, oci.WithMemoryLimit(64<<20))
	require.NoError(t, task.Start(p.ctx))
	limit, pids := int64(32<<20), int64(77)
	require.NoError(t, task.Update(p.ctx, client.WithResources(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids},
	})))
	files := map[string]string{"memory/memory.limit_in_bytes": "33554432", "pids/pids.max": "77"}
	if cgroups.Mode() == cgroups.Unified {
		files = map[string]string{"/memory.max": "33554432", "/pids.max": "77"}
	}
	for file, want := range files {
		controller, name, _ := strings.Cut(file, "/")
		data, err := os.ReadFile(cgroupFile(t, task.Pid(), controller, name))
		require.NoError(t, err)
		require.Equal(t, want, strings.TrimSpace(string(data)))
	}
}

// cgroupFile is a file of a process's cgroup; the controller is empty for
// version 2.
func cgroupFile(t *testing.T, pid uint32, controller, name string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(data)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); f[1] == controller {
			return filepath.Join("/sys/fs/cgroup", controller, f[2], name)
		}
	}
	t.Fatalf("no %s cgroup in %s", controller, data)
	return ""
}

// testSystemdCgroup: the option reaches runc, which says that there is no
// systemd here, or takes the path for a slice.
func testSystemdCgroup(t *testing.T, p *parity) {
	_, errOut, code := runForeground(t, p.d, "", p.runtime, p.id, []string{"--runc-systemd-cgroup", "--cgroup", "system.slice:crsc:" + p.id}, "true")
	require.NotZero(t, code)
	require.Contains(t, errOut, "systemd")
}
