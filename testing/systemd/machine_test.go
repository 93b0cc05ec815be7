package systemd

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/isolate"
)

// patience bounds the wait for what takes a second or two when all is well.
const patience = time.Minute

const (
	unit          = "crsc-db.scope"
	serverAddress = "10.98.0.2"
	options       = isolate.Dir + "/options.toml"
	stateDir      = isolate.Dir + "/state-crsc"
)

// machine is the isolated host.
type machine struct {
	t      testing.TB
	env    *env.Env
	pid    int // of systemd, as seen from outside of its PID namespace
	log    string
	daemon *isolate.Containerd
}

// start starts systemd, and containerd beside it.
func start(t testing.TB) *machine {
	t.Helper()
	e, err := env.Locate("")
	require.NoError(t, err)
	m := &machine{t: t, env: e, log: filepath.Join(isolate.Dir, "systemd.log")}
	files := map[string]string{
		"/run/systemd/system/crsc.target": "[Unit]\nDescription=nothing\nDefaultDependencies=no\n",
		options:                           "SystemdCgroup = true\n",
		isolate.Dir + "/node.toml":        fmt.Sprintf("state_dir = %q\ncriu = %q\n", stateDir, filepath.Join(e.ToolsDir, "criu")),
	}
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
	}
	m.startSystemd()
	// What is started as containerd goes where systemd is.
	wrapper := filepath.Join(isolate.Dir, "bin", "containerd")
	require.NoError(t, os.MkdirAll(filepath.Dir(wrapper), 0o755))
	script := fmt.Sprintf("#!/bin/sh\nexec nsenter --target %d --pid --mount %s \"$@\"\n", m.pid, filepath.Join(e.ToolsDir, "containerd"))
	require.NoError(t, os.WriteFile(wrapper, []byte(script), 0o755))
	m.daemon, err = isolate.StartContainerd(context.Background(), isolate.ContainerdOptions{
		Path: filepath.Dir(wrapper) + ":" + e.Path(), Node: isolate.Dir + "/node.toml",
		Off: []string{"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"},
	})
	require.NoError(t, err)
	file, _, err := ociimage.Archive("redis")
	require.NoError(t, err)
	m.do("ctr", "images", "import", file)
	for _, line := range []string{
		"ip netns add pod",
		"ip link add host type veth peer name eth0 netns pod",
		"ip addr add 10.98.0.1/24 dev host", "ip link set host up",
		"ip -n pod addr add " + serverAddress + "/24 dev eth0", "ip -n pod link set eth0 up", "ip -n pod link set lo up",
	} {
		m.do(strings.Fields(line)...)
	}
	return m
}

func (m *machine) startSystemd() {
	m.t.Helper()
	log, err := os.Create(m.log)
	require.NoError(m.t, err)
	defer log.Close()
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "/lib/systemd/systemd", "--system", "--unit=crsc.target",
		"--log-target=console", "--show-status=no")
	cmd.Env = append(os.Environ(), "container=crsc")
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(m.t, cmd.Start(), "testing/env/install packages") // it ends with the isolation
	m.eventually("systemd", func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if err != nil {
			return err
		}
		if m.pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
			return err
		}
		out, err := m.try("systemctl", "is-active", "crsc.target")
		if err != nil {
			said, _ := os.ReadFile(m.log)
			err = fmt.Errorf("%w: %s%s", err, out, said)
		}
		return err
	})
}

func (m *machine) eventually(what string, f func() error) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		require.True(m.t, time.Now().Before(deadline), "waited for %s: %v", what, err)
	}
}

// try runs a program where systemd is.
func (m *machine) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--pid", "--mount"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+m.env.Path(), "CONTAINERD_ADDRESS="+isolate.Address)
	text, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(text)), err
}

// events writes what containerd tells to a file from now on.
func (m *machine) events() (file string) {
	m.t.Helper()
	file = filepath.Join(isolate.Dir, "events")
	out, err := os.Create(file)
	require.NoError(m.t, err)
	defer out.Close()
	cmd := exec.Command(filepath.Join(m.env.ToolsDir, "ctr"), "--address", isolate.Address, "events")
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(m.t, cmd.Start()) // it ends with the isolation
	return file
}

func (m *machine) do(args ...string) string {
	m.t.Helper()
	text, err := m.try(args...)
	require.NoError(m.t, err)
	return text
}

// await waits until the status file says what a condition wants.
func (m *machine) await(what string, cond func(*status.Status) bool) *status.Status {
	m.t.Helper()
	var s *status.Status
	m.eventually(what, func() (err error) {
		s, err = status.Read(filepath.Join(stateDir, "default", "db"))
		if err == nil && !cond(s) {
			err = fmt.Errorf("%+v\n%s", s, m.daemon.LogTail(10))
		}
		return err
	})
	return s
}

// crash kills the container's init and waits until it is recovered.
func (m *machine) crash() {
	m.t.Helper()
	before := m.await("a running init", func(s *status.Status) bool { return s.Phase == "running" && s.Pid > 0 })
	m.do("kill", "-KILL", strconv.Itoa(before.Pid))
	m.await("the recovery", func(s *status.Status) bool {
		return s.RecoveryCount > before.RecoveryCount && s.Phase == "running"
	})
}

// client is a connection to the container.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	n    int
}

func (m *machine) dial() *client {
	m.t.Helper()
	k := &client{t: m.t}
	m.eventually("the server", func() (err error) {
		k.conn, err = net.DialTimeout("tcp", serverAddress+":6379", patience)
		return err
	})
	m.t.Cleanup(func() { k.conn.Close() })
	k.r = bufio.NewReader(k.conn)
	return k
}

// count increments, and no reply may be missing.
func (k *client) count(times int) {
	k.t.Helper()
	require.NoError(k.t, k.conn.SetDeadline(time.Now().Add(patience)))
	for range times {
		k.n++
		_, err := fmt.Fprint(k.conn, "INCR n\r\n")
		require.NoError(k.t, err)
		line, err := k.r.ReadString('\n')
		require.NoError(k.t, err)
		require.Equal(k.t, fmt.Sprintf(":%d\r\n", k.n), line)
	}
}
