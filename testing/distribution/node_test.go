package distribution

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/isolate"
)

// patience bounds the wait for what takes a second or two when all is well.
const patience = time.Minute

const (
	containerdConfig = "/etc/containerd/config.toml"
	stateDir         = "/var/lib/crsc"
	serverAddress    = "10.99.0.2"
)

// try runs a program of the node.
func try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "CONTAINERD_ADDRESS="+isolate.Address)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return string(text), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, text)
	}
	return string(text), nil
}

func do(t testing.TB, args ...string) string {
	t.Helper()
	text, err := try(args...)
	require.NoError(t, err)
	return text
}

// writeMain writes the administrator's configuration of containerd.
func writeMain(t testing.TB) string {
	t.Helper()
	text := string(isolate.ContainerdOptions{}.TOML())
	require.NoError(t, os.MkdirAll(filepath.Dir(containerdConfig), 0o755))
	require.NoError(t, os.WriteFile(containerdConfig, []byte(text), 0o644))
	return text
}

// daemon runs from the first start on, until the program ends.
var daemon *isolate.Containerd

// start starts containerd with that configuration, unless it runs, and makes a
// network namespace for the container.
func start(t testing.TB) *isolate.Containerd {
	t.Helper()
	if daemon == nil {
		d, err := isolate.StartContainerd(context.Background(), isolate.ContainerdOptions{
			Path: path, File: containerdConfig, Again: 50 * time.Millisecond,
		})
		require.NoError(t, err)
		file, _, err := ociimage.Archive("redis")
		require.NoError(t, err)
		do(t, "ctr", "images", "import", file)
		daemon = d
	}
	for _, line := range []string{
		"ip netns add pod",
		"ip link add host type veth peer name eth0 netns pod",
		"ip addr add 10.99.0.1/24 dev host", "ip link set host up",
		"ip -n pod addr add " + serverAddress + "/24 dev eth0", "ip -n pod link set eth0 up", "ip -n pod link set lo up",
	} {
		do(t, strings.Fields(line)...)
	}
	t.Cleanup(func() { do(t, "ip", "netns", "del", "pod") })
	return daemon
}

// server is a protected Redis with a client.
type server struct {
	t      testing.TB
	daemon *isolate.Containerd
	conn   net.Conn
	r      *bufio.Reader
	n      int
}

func runServer(t testing.TB, d *isolate.Containerd) *server {
	t.Helper()
	do(t, "ctr", "run", "-d", "--runtime", "io.containerd.crsc.v1", "--with-ns", "network:/run/netns/pod",
		"--annotation", "crsc.io/checkpoint-restore=true", "--annotation", "crsc.io/checkpoint-interval=500ms",
		ociimage.Ref("redis"), "db")
	s := &server{t: t, daemon: d}
	s.await("protection", func(s *status.Status) bool { return s.Protected && s.Checkpoints.Count > 0 })
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", serverAddress+":6379", patience)
		if err == nil {
			s.conn, s.r = conn, bufio.NewReader(conn)
			return s
		}
		require.True(t, time.Now().Before(deadline), "%v", err)
	}
}

// await waits until the status file says what a condition wants.
func (s *server) await(what string, cond func(*status.Status) bool) *status.Status {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		st, err := status.Read(filepath.Join(stateDir, "default", "db"))
		if err == nil && cond(st) {
			return st
		}
		require.True(s.t, time.Now().Before(deadline), "waited for %s: %+v %v\n%s", what, st, err, s.daemon.LogTail(20))
	}
}

// count increments on the one connection, and no reply may be missing.
func (s *server) count(times int) {
	s.t.Helper()
	require.NoError(s.t, s.conn.SetDeadline(time.Now().Add(patience)))
	for range times {
		s.n++
		_, err := fmt.Fprint(s.conn, "INCR n\r\n")
		require.NoError(s.t, err)
		line, err := s.r.ReadString('\n')
		require.NoError(s.t, err, "%s", s.daemon.LogTail(20))
		require.Equal(s.t, fmt.Sprintf(":%d\r\n", s.n), line)
	}
}

// crash kills it and waits until it is recovered.
func (s *server) crash() {
	s.t.Helper()
	before := s.await("a running init", func(s *status.Status) bool { return s.Phase == "running" && s.Pid > 0 })
	require.NoError(s.t, syscall.Kill(before.Pid, syscall.SIGKILL))
	s.await("the recovery", func(s *status.Status) bool {
		return s.RecoveryCount > before.RecoveryCount && s.Phase == "running"
	})
}

// shim is the program that the container's shim runs.
func (s *server) shim() string {
	s.t.Helper()
	pid := s.await("its shim", func(s *status.Status) bool { return s.ShimPid > 0 }).ShimPid
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	require.NoError(s.t, err)
	return exe
}

func (s *server) remove() {
	s.t.Helper()
	s.conn.Close()
	do(s.t, "ctr", "task", "rm", "-f", "db")
	do(s.t, "ctr", "container", "rm", "db")
}

// depth is how far down files looks: nothing puts a directory of its own further
// down into somebody else's.
const depth = 5

// files finds what is on the node in places where a package could put something,
// but for what dpkg keeps.
func files(t testing.TB) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, dir := range []string{"/usr", "/etc", "/opt", "/var/lib"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if path == "/var/lib/dpkg" {
				return fs.SkipDir
			}
			found[path] = true
			if err == nil && d.IsDir() && strings.Count(path, "/") == depth {
				return fs.SkipDir
			}
			return err
		}))
	}
	return found
}

// changed lists what is on the node and was not, or was and is not.
func changed(t testing.TB, before map[string]bool) (list []string) {
	t.Helper()
	now := files(t)
	for path := range now {
		if !before[path] {
			list = append(list, "+"+path)
		}
	}
	for path := range before {
		if !now[path] {
			list = append(list, "-"+path)
		}
	}
	return list
}
