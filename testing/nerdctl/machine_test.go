package nerdctl

import (
	"bufio"
	"context"
	"fmt"
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
)

// patience bounds the wait for what takes a second or two when all is well.
const patience = time.Minute

func (h *machine) command(ctx context.Context, args ...string) *exec.Cmd {
	all := append([]string{"--address", h.daemon.Address, "--cni-path", h.env.ToolsDir,
		"--cni-netconfpath", "/etc/cni/net.d"}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(h.env.ToolsDir, "nerdctl"), all...)
	cmd.Env = append(os.Environ(), "PATH="+h.env.Path(), "CONTAINERD_NAMESPACE=default")
	return cmd
}

func (h *machine) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := h.command(ctx, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("nerdctl %s: %w: %s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// nerdctl runs nerdctl and returns what it prints.
func (h *machine) nerdctl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := h.try(args...)
	require.NoError(t, err, "%s", h.daemon.LogTail(10))
	return out
}

// loadImages takes the archives from the cache, where ociimage keeps them.
func (h *machine) loadImages() error {
	for _, name := range []string{"redis", "busybox", "python"} {
		file, _, err := ociimage.Archive(name)
		if err != nil {
			return err
		}
		if _, err := h.try("load", "-i", file); err != nil {
			return err
		}
	}
	return nil
}

// protect are the flags of a protected container.
func protect(pairs ...string) []string {
	flags := []string{"--runtime", runtime, "--annotation", "crsc.io/checkpoint-restore=true",
		"--annotation", "crsc.io/checkpoint-interval=500ms"}
	for _, p := range pairs {
		flags = append(flags, "--annotation", "crsc.io/"+p)
	}
	return flags
}

// container is one of a test's.
type container struct {
	t    testing.TB
	name string
	id   string
}

// run starts a container in the background and removes it at the end.
func run(t testing.TB, name string, flags []string, image string, args ...string) *container {
	t.Helper()
	all := append(append([]string{"run", "-d", "--name", name}, flags...), ociimage.Ref(image))
	remove(t, name)
	return &container{t, name, host.nerdctl(t, append(all, args...)...)}
}

// remove removes a container after the test.
func remove(t testing.TB, name string) {
	t.Cleanup(func() {
		if _, err := host.try("rm", "-f", name); err != nil && !strings.Contains(err.Error(), "no such container") {
			t.Error(err)
		}
	})
}

func (c *container) inspect(format string) string {
	c.t.Helper()
	return host.nerdctl(c.t, "inspect", "-f", format, c.name)
}

// await waits until the status file says what a condition wants.
func (c *container) await(what string, cond func(*status.Status) bool) *status.Status {
	c.t.Helper()
	dir := filepath.Join(host.state, "default", c.id)
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		s, err := status.Read(dir)
		if err == nil && cond(s) {
			return s
		}
		require.True(c.t, time.Now().Before(deadline), "waited for %s: %+v %v\n%s", what, s, err, host.daemon.LogTail(10))
	}
}

func (c *container) awaitProtected() {
	c.t.Helper()
	c.await("protection", func(s *status.Status) bool { return s.Protected && s.Checkpoints.Count > 0 })
}

// kill kills the container's init past everybody.
func (c *container) kill() {
	c.t.Helper()
	pid := c.await("a running init", func(s *status.Status) bool { return s.Phase == "running" && s.Pid > 0 }).Pid
	require.NoError(c.t, syscall.Kill(pid, syscall.SIGKILL))
}

// crash kills it and waits until it is recovered.
func (c *container) crash() {
	c.t.Helper()
	before := c.await("its status", func(*status.Status) bool { return true }).RecoveryCount
	c.kill()
	c.await("the recovery", func(s *status.Status) bool { return s.RecoveryCount > before && s.Phase == "running" })
}

// client is a connection to Redis.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial repeats until somebody answers.
func dial(t testing.TB, addr string) *client {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", addr, patience)
		if err == nil {
			k := &client{t, conn, bufio.NewReader(conn)}
			var reply string
			if reply, err = k.try("PING"); err == nil {
				require.Equal(t, "+PONG", reply)
				t.Cleanup(func() { conn.Close() })
				return k
			}
			conn.Close()
		}
		require.True(t, time.Now().Before(deadline), "%s: %v", addr, err)
	}
}

// try sends an inline command and returns the line of the reply.
func (k *client) try(command string) (string, error) {
	if err := k.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(k.conn, "%s\r\n", command); err != nil {
		return "", err
	}
	line, err := k.r.ReadString('\n')
	return strings.TrimSpace(line), err
}

func (k *client) do(command string) string {
	k.t.Helper()
	line, err := k.try(command)
	require.NoError(k.t, err, command)
	return line
}
