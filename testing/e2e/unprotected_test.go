package e2e

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// TestRefused: a mistake in an annotation is refused, with a message that names
// the key and what it accepts, and leaves nothing.
func TestRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		key, value string
		says       []string
	}{
		"malformed":    {"crsc.io/checkpoint-interval", "2 seconds", []string{`"2 seconds"`, `such as "2s"`, `"off"`}},
		"unknown":      {"crsc.io/checkpoint-intervall", "2s", []string{"unknown key", "crsc.io/checkpoint-interval?"}},
		"disabled too": {"crsc.io/recovery-budget", "many", []string{"10/10m"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t)
			a := protected(strings.TrimPrefix(tc.key, "crsc.io/"), tc.value)
			if name == "disabled too" {
				a["crsc.io/checkpoint-restore"] = "false"
			}
			err := c.tryRun("redis", a, nil)
			require.ErrorContains(t, err, tc.key)
			for _, s := range tc.says {
				require.ErrorContains(t, err, s)
			}
			c.ctr("container", "rm", c.id)
			c.requireNoTraces()
		})
	}
}

// TestUnprotected: what cannot be protected runs, and says why.
func TestUnprotected(t *testing.T) {
	t.Parallel()
	volume := t.TempDir()
	writable := "--mount=type=bind,src=" + volume + ",dst=/vol,options=rbind:rw"
	for name, tc := range map[string]struct {
		flags  []string
		reason string
	}{
		"host network":    {[]string{"--net-host"}, "host's network namespace"},
		"writable volume": {[]string{writable}, "writable volume /vol"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t)
			args := []string{"run", "--detach", "--runtime", env.RuntimeCRSC}
			for k, v := range protected() {
				args = append(args, "--annotation", k+"="+v)
			}
			args = append(append(args, tc.flags...), ociimage.Ref("busybox"), c.id, "sleep", "1000")
			c.ctr(args...)
			s := c.status()
			require.False(t, s.Protected)
			require.Contains(t, s.Reason, "unprotected: ")
			require.Contains(t, s.Reason, tc.reason)
			require.Equal(t, "hello\n", c.ctr("task", "exec", "--exec-id", "x", c.id, "echo", "hello"))
			c.signalInit(9)
			require.Equal(t, 137, c.awaitExit(promptly), "a crash is an exit")
			require.Contains(t, c.status().Reason, tc.reason, "the reason stays as long as the container")
			c.ctr("task", "rm", c.id)
			c.ctr("container", "rm", c.id)
			c.requireNoTraces()
		})
	}
}

// TestSafeVolume: the owner's word is enough.
func TestSafeVolume(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	dir := t.TempDir()
	c.run("busybox", noTriggers("safe-volumes", "/vol"),
		[]string{"--mount=type=bind,src=" + dir + ",dst=/vol,options=rbind:rw", c.mountApp()}, "/app", "-file", "/vol/data.log")
	k := c.dialApp()
	require.Equal(t, "1", k.ask("add"))
	c.crsc("checkpoint", c.id) // and no other before the crash
	require.True(t, c.status().Protected)
	require.Equal(t, "2", k.ask("add"))
	c.crash()
	require.Equal(t, "3", k.ask("add"))
	data, err := os.ReadFile(filepath.Join(dir, "data.log"))
	require.NoError(t, err)
	// The volume is not rolled back: the second line was written twice, which
	// its owner declared to be fine.
	require.Equal(t, "1\n2\n2\n3\n", string(data))
}

// TestExcludePorts: an excluded port is the application's own.
func TestExcludePorts(t *testing.T) {
	t.Parallel()
	c := newContainer(t).run("redis", protected("exclude-ports", "6380-6390", "checkpoint-interval", "300ms"), nil, "sh", "-c",
		`redis-server --save "" --protected-mode no --bind "*" --port 6380 >/dev/null & exec redis-server --save "" --protected-mode no --bind "*"`)
	k := c.dial()
	direct := c.connect(netip.AddrPortFrom(c.pod.IP4, 6380))
	require.Equal(t, "PONG", direct.do("PING"))
	s := c.await("an intercepted address", func(s *status.Status) bool { return len(s.Intercepted) > 0 })
	require.True(t, slices.ContainsFunc(s.Intercepted, func(a string) bool { return strings.HasSuffix(a, ":6379") }), s.Intercepted)
	require.False(t, slices.ContainsFunc(s.Intercepted, func(a string) bool { return strings.HasSuffix(a, ":6380") }), s.Intercepted)
	require.Equal(t, "1", k.do("INCR", "n"))
	c.awaitCheckpoint()
	past := direct.conn.RemoteAddr().String() + " " + direct.conn.LocalAddr().String()
	c.await("the connection past the proxy", func(s *status.Status) bool {
		return s.Unproxied != nil && s.Unproxied.Count == 1 && slices.Equal(s.Unproxied.Connections, []string{past})
	})
	c.crash()
	require.Equal(t, "2", k.do("INCR", "n"), "the proxied connection lives")
	_, err := direct.try("PING")
	require.Error(t, err, "the other one broke in the crash")
	c.await("no connection past the proxy", func(s *status.Status) bool { return s.Unproxied == nil })
	require.Equal(t, "PONG", c.connect(netip.AddrPortFrom(c.pod.IP4, 6380)).do("PING"), "and its port serves again")
}

// TestUnannotated: without the annotation the shim is a runc shim.
func TestUnannotated(t *testing.T) {
	t.Parallel()
	plain := redis(t, nil)
	stock := newContainer(t)
	require.NoError(t, stock.e.Run(context.Background(), env.Container{
		ID: stock.id, Image: ociimage.Ref("redis"), Runtime: env.RuntimeRunc, Netns: stock.pod.Path,
	}))
	stock.dial().close()
	require.Empty(t, redirection(t, plain.pod.Path))
	require.NoDirExists(t, plain.stateDir())
	cost := func(c *container) (fds, threads int) {
		shim, err := c.e.Shim(c.id)
		require.NoError(t, err)
		return len(globbed(t, "/proc/"+strconv.Itoa(shim)+"/fd/*")), len(globbed(t, "/proc/"+strconv.Itoa(shim)+"/task/*"))
	}
	fds, threads := cost(plain)
	stockFDs, stockThreads := cost(stock)
	t.Logf("descriptors %d, runc's shim %d; threads %d, runc's shim %d", fds, stockFDs, threads, stockThreads)
	require.LessOrEqual(t, fds, stockFDs+2)
	require.LessOrEqual(t, threads, stockThreads+4)
	k := plain.dial()
	plain.signalInit(9)
	require.Equal(t, 137, plain.awaitExit(promptly))
	requireEnded(t, k)
	plain.ctr("task", "rm", plain.id)
	plain.ctr("container", "rm", plain.id)
	plain.requireNoTraces()
}

// TestNothingLeft: after ctr has removed a container that was checkpointed,
// crashed and recovered, the host is as before.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*container){
		"kill and rm": func(c *container) {
			c.ctr("task", "kill", "-s", "SIGKILL", c.id)
			c.awaitExit(promptly)
			c.ctr("task", "rm", c.id)
		},
		"rm --force": func(c *container) { c.ctr("task", "rm", "--force", c.id) },
		"rm --force in a recovery": func(c *container) {
			c.signalInit(9)
			c.ctr("task", "rm", "--force", c.id)
		},
		"exit by itself": func(c *container) {
			_, _ = c.dial().try("SHUTDOWN", "NOSAVE")
			require.Zero(c.t, c.awaitExit(promptly))
			c.ctr("task", "rm", c.id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := redis(t, protected("checkpoint-interval", "300ms"))
			c.awaitCheckpoint()
			k := c.dial()
			c.crash()
			require.Equal(t, "1", k.do("INCR", "n"))
			require.NotEmpty(t, c.traces())
			end(c)
			c.ctr("container", "rm", c.id)
			requireEnded(t, k)
			c.requireNoTraces()
			// The name and the network can be used again, from the beginning.
			c.run("redis", protected(), nil)
			require.Equal(t, "1", c.dial().do("INCR", "n"))
		})
	}
}

// TestShimKilled: what a dead shim leaves is removed by the daemon's call of
// the shim's delete action.
func TestShimKilled(t *testing.T) {
	t.Parallel()
	for name, recovered := range map[string]bool{"before a crash": false, "after a recovery": true} {
		t.Run(name, func(t *testing.T) {
			c := redis(t, protected("checkpoint-interval", "300ms"))
			c.awaitCheckpoint()
			if recovered {
				c.crash()
				c.awaitCheckpoint()
			}
			k := c.dial()
			shim, err := c.e.Shim(c.id)
			require.NoError(t, err)
			kill(t, shim)
			c.requireNoTraces()
			requireEnded(t, k)
			_, _ = c.e.Ctr(t.Context(), "task", "rm", "--force", c.id) // the daemon may have forgotten it
			c.ctr("container", "rm", c.id)
			c.run("redis", protected("checkpoint-interval", "300ms"), nil)
			k = c.dial()
			require.Equal(t, "1", k.do("INCR", "n"))
			c.awaitCheckpoint()
			c.crash()
			require.Equal(t, "2", k.do("INCR", "n"))
		})
	}
}

// requireNoTraces waits for the daemon, which cleans up in the background.
func (c *container) requireNoTraces() {
	c.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left := c.traces()
		if len(left) == 0 {
			return
		}
		require.True(c.t, time.Now().Before(deadline), "left behind: %s", strings.Join(left, "\n"))
	}
}

// TestStaleBuild: the suite's own guard against testing yesterday's shim.
func TestStaleBuild(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	require.ErrorContains(t, checkBuild(root), "run make build")
	e := env.RequireInstance(t, instance)
	for _, d := range []string{"bin", "cmd/containerd-shim-crsc-v1"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	require.NoError(t, exec.Command("cp", filepath.Join(e.Root, "bin/containerd-shim-crsc-v1"), filepath.Join(root, "bin")).Run())
	require.NoError(t, os.WriteFile(filepath.Join(root, "go.mod"), []byte("module x\n"), 0o644))
	source := filepath.Join(root, "cmd/containerd-shim-crsc-v1/main.go")
	require.NoError(t, os.WriteFile(source, []byte("package main\nfunc main() {}\n"), 0o644))
	later := time.Now().Add(time.Second)
	require.NoError(t, os.Chtimes(source, later, later))
	require.ErrorContains(t, checkBuild(root), "main.go")
}
