package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/pkg/protobuf/types"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/crsc-io/crsc/shim/internal/shimtest"
)

func TestBootstrap(t *testing.T) {
	d := startDaemon(t)
	for _, s := range []struct {
		name string
		run  func(t *testing.T, d *shimtest.Daemon, id string)
	}{
		{"group", testGroup},
		{"shim dies", testShimDies},
		{"options", testOptions},
		{"service", testService},
		{"daemon restarts", testDaemonRestart},
	} {
		t.Run(s.name, func(t *testing.T) {
			s.run(t, d.For(t), strings.ReplaceAll(s.name, " ", "-"))
		})
	}
}

// testGroup: the containers of a pod share a shim, which outlives the first.
func testGroup(t *testing.T, d *shimtest.Daemon, id string) {
	flags := []string{"--annotation", "io.kubernetes.cri.sandbox-id=" + id + "-a"}
	a := runDetached(t, d, ours, id+"-a", flags, "sleep", "1000")
	b := runDetached(t, d, ours, id+"-b", flags, "sleep", "1000")
	other := runDetached(t, d, ours, id+"-c", nil, "sleep", "1000")
	shim := connect(t, d, b.id)
	r, err := shim.Connect(context.Background(), &api.ConnectRequest{ID: b.id})
	require.NoError(t, err)
	require.EqualValues(t, d.ShimPid(a.id), r.ShimPid)
	require.NotEqualValues(t, d.ShimPid(other.id), r.ShimPid)
	a.remove()
	_, status := b.row()
	require.Equal(t, "RUNNING", status)
	d.Ctr("task", "exec", "--exec-id", "x", b.id, "true")
	b.remove()
	other.remove()
}

// connect returns a client of the shim that serves a container.
func connect(t *testing.T, d *shimtest.Daemon, id string) api.TTRPCTaskService {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(d.Dir, "state", "io.containerd.runtime.v2.task", d.Namespace, id, "bootstrap.json"))
	require.NoError(t, err)
	var p struct {
		Version           int
		Address, Protocol string
	}
	require.NoError(t, json.Unmarshal(data, &p))
	require.Equal(t, 3, p.Version)
	require.Equal(t, "ttrpc", p.Protocol)
	conn, err := net.Dial("unix", strings.TrimPrefix(p.Address, "unix://"))
	require.NoError(t, err)
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() { client.Close() })
	return api.NewTTRPCTaskClient(client)
}

// testShimDies: the daemon then has the binary clean up.
func testShimDies(t *testing.T, d *shimtest.Daemon, id string) {
	c := runDetached(t, d, ours, id, nil, "sleep", "1000")
	init, _ := c.row()
	pid, err := strconv.Atoi(init)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(d.ShimPid(id), syscall.SIGKILL))
	shimtest.Eventually(t, "init is killed", func() bool {
		return syscall.Kill(pid, 0) == syscall.ESRCH
	})
	shimtest.Eventually(t, "the task is gone", func() bool {
		_, status := c.row()
		return status == "" || status == "STOPPED"
	})
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), "/"+id+"/rootfs")
	require.NoDirExists(t, filepath.Join("/run/containerd/runc", d.Namespace, id))
	_, _ = d.TryCtr("task", "delete", id)
	d.Ctr("container", "delete", id)
}

// testOptions: the generic options, which are all that clients send to a
// runtime that they don't know, reach runc.
func testOptions(t *testing.T, d *shimtest.Daemon, id string) {
	root := filepath.Join(d.Dir, "runc-root")
	file := filepath.Join(t.TempDir(), "options.toml")
	require.NoError(t, os.WriteFile(file, []byte("Root = \""+root+"\"\n"), 0o600))
	c := runDetached(t, d, ours, id+"-file", []string{"--runtime-config-path", file}, "sleep", "1000")
	require.DirExists(t, filepath.Join(root, d.Namespace, c.id))
	c.remove()
	_, errOut, code := runForeground(t, d, "", ours, id+"-missing", []string{"--runtime-config-path", file + "x"}, "true")
	require.NotZero(t, code)
	require.Contains(t, errOut, "runtime options")
}

// testService calls what ctr has no command for.
func testService(t *testing.T, d *shimtest.Daemon, id string) {
	ctx := context.Background()
	c := runDetached(t, d, ours, id, []string{"--memory-limit", "50000000"}, "sleep", "1000")
	shim := connect(t, d, id)
	_, err := shim.Update(ctx, &api.UpdateTaskRequest{ID: id, Resources: &types.Any{
		Value: []byte(`{"memory":{"limit":100000000}}`),
	}})
	require.NoError(t, err)
	require.Regexp(t, `memory\.(limit_in_bytes|max)? +9999\d+|99999744`, d.Ctr("task", "metrics", id))
	_, err = shim.Update(ctx, &api.UpdateTaskRequest{ID: id, Resources: &types.Any{Value: []byte(`{`)}})
	require.ErrorContains(t, err, "InvalidArgument")
	_, err = shim.State(ctx, &api.StateRequest{ID: "nobody"})
	require.ErrorContains(t, err, "NotFound")
	_, err = shim.Create(ctx, &api.CreateTaskRequest{ID: id, Bundle: "/nonexistent"})
	require.ErrorContains(t, err, "AlreadyExists")
	_, err = shim.Create(ctx, &api.CreateTaskRequest{ID: "other", Bundle: "/nonexistent"})
	require.Error(t, err)
	_, err = shim.CloseIO(ctx, &api.CloseIORequest{ID: id, ExecID: "nobody"})
	require.ErrorContains(t, err, "NotFound")
	_, err = shim.Shutdown(ctx, &api.ShutdownRequest{ID: id})
	require.NoError(t, err)
	st, err := shim.State(ctx, &api.StateRequest{ID: id})
	require.NoError(t, err, "a shim with a container stays")
	require.Equal(t, id, st.ID)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = shim.Wait(short, &api.WaitRequest{ID: id})
	require.Error(t, err, "the wait is pending")
	c.remove()
}

// testDaemonRestart: the shim serves on while the daemon is away.
func testDaemonRestart(t *testing.T, d *shimtest.Daemon, id string) {
	c := runDetached(t, d, ours, id, guarded("restart"), "sleep", "1000")
	pid, _ := c.row()
	shim := connect(t, d, id)
	d.Stop()
	n, err := strconv.Atoi(pid)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(n, syscall.SIGKILL))
	shimtest.Eventually(t, "recovered without the daemon", func() bool {
		st, err := shim.State(context.Background(), &api.StateRequest{ID: id})
		return err == nil && int(st.Pid) != n
	})
	d.Launch()
	now, status := c.row()
	require.Equal(t, "RUNNING", status)
	require.NotEqual(t, pid, now)
	d.Ctr("task", "exec", "--exec-id", "x", id, "true")
	c.remove()
}

func TestInfo(t *testing.T) {
	for name, o := range map[string]proto.Message{
		"none":    nil,
		"runc":    &options.Options{SystemdCgroup: true},
		"generic": &runtimeoptions.Options{ConfigBody: []byte("SystemdCgroup = true")},
	} {
		t.Run(name, func(t *testing.T) {
			var in []byte
			if o != nil {
				a, err := typeurl.MarshalAnyToProto(o)
				require.NoError(t, err)
				in, err = proto.Marshal(a)
				require.NoError(t, err)
			}
			info, err := Manager{}.Info(context.Background(), bytes.NewReader(in))
			require.NoError(t, err)
			require.Equal(t, RuntimeName, info.Name)
			if o == nil {
				require.Nil(t, info.Options)
				return
			}
			got, err := typeurl.UnmarshalAny(info.Options)
			require.NoError(t, err)
			require.True(t, got.(*options.Options).SystemdCgroup)
		})
	}
	_, err := Manager{}.Info(context.Background(), strings.NewReader("\xff"))
	require.Error(t, err)
}
