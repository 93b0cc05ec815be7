package env

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// traces lists everything on the host that belongs to an environment, by means
// of its own that share nothing with Down.
func traces(t *testing.T, e *Env) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{
		e.Dir, e.Dir + ".*", netnsDir + "/" + e.Name + "-*", runcRoot + "/" + e.Namespace,
		"/sys/fs/cgroup/*/" + e.Namespace, "/sys/fs/cgroup/" + e.Namespace,
	} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		out = append(out, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, e.Name) {
			out = append(out, "mount "+line)
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range procs {
		data, _ := os.ReadFile(file) // the process may have ended
		if bytes.Contains(data, []byte(e.Dir)) {
			out = append(out, file+" "+string(data))
		}
	}
	return out
}

func located(t *testing.T, instance string) *Env {
	e, err := Locate(instance)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Down(context.Background())) })
	return e
}

// busyRootfs makes a root filesystem for ctr run --rootfs.
func busyRootfs(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(dir+"/bin", 0o755))
	data, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		data, err = os.ReadFile("/bin/busybox")
	}
	require.NoError(t, err, "busybox-static: run testing/env/install")
	require.NoError(t, os.WriteFile(dir+"/bin/busybox", data, 0o755))
	return dir
}

// runSleeper runs a container that sleeps, and returns the pid of its init.
func runSleeper(t *testing.T, e *Env, id string, flags ...string) int {
	args := append([]string{"run", "--detach", "--rootfs", "--runtime", RuntimeRunc}, flags...)
	e.MustCtr(t, append(args, busyRootfs(t), id, "/bin/busybox", "sleep", "1000")...)
	pid, status, err := e.Task(context.Background(), id)
	require.NoError(t, err)
	require.Equal(t, "RUNNING", status)
	return pid
}

func TestDownLeavesNothing(t *testing.T) {
	for name, damage := range map[string]func(*testing.T, *Env){
		"intact":      func(*testing.T, *Env) {},
		"daemon dead": func(t *testing.T, e *Env) { require.NoError(t, e.daemonProcess().signal(syscall.SIGKILL)) },
		"shim dead": func(t *testing.T, e *Env) {
			require.NoError(t, eachProcess(func(pid int) {
				if name, _ := cmdline(pid); strings.HasPrefix(name, "containerd-shim") && e.isOurTool(pid) {
					require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
				}
			}))
		},
		"paused": func(t *testing.T, e *Env) {
			e.MustCtr(t, "task", "pause", "sleeper")
		},
		"pid file lost and netns half gone": func(t *testing.T, e *Env) {
			require.NoError(t, os.Remove(e.pidFile()))
			require.NoError(t, removeNetns(e.Pod().Name))
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := located(t, "down")
			ctx := context.Background()
			require.NoError(t, e.Up(ctx))
			_, err := e.MakePod("extra")
			require.NoError(t, err)
			pid := runSleeper(t, e, "sleeper", "--with-ns", "network:"+e.Pod().Path)
			stray := exec.Command("sleep", "1000")
			require.NoError(t, InNetns(e.Client().Path, stray.Start))
			strayEnded := make(chan error, 1)
			go func() { strayEnded <- stray.Wait() }()

			damage(t, e)
			require.NoError(t, e.Down(ctx))
			assert.Empty(t, traces(t, e))
			assert.False(t, process{Pid: pid}.running(), "the container's init outlived the environment")
			select {
			case <-strayEnded:
			case <-time.After(time.Minute):
				stray.Process.Kill()
				t.Error("a process in the clients' namespace outlived the environment")
			}
			require.NoError(t, e.Down(ctx), "Down of what is down")
			assert.Empty(t, traces(t, e))
		})
	}
}

// running ignores the start time.
func (p process) running() bool {
	_, _, err := procStat(p.Pid)
	return err == nil
}

func TestUpIsIdempotentAndHeals(t *testing.T) {
	e := located(t, "up")
	ctx := context.Background()
	require.NoError(t, e.Up(ctx))
	first := e.daemonProcess()
	require.NoError(t, e.Up(ctx))
	assert.Equal(t, first, e.daemonProcess(), "a second Up must find the daemon of the first")

	require.NoError(t, first.signal(syscall.SIGKILL))
	require.True(t, first.await(time.Minute))
	require.NoError(t, e.Up(ctx))
	assert.True(t, e.Ready(ctx))

	// A pid file whose pid belongs to somebody else by now is not believed.
	require.NoError(t, e.stopDaemon(time.Minute))
	require.NoError(t, os.WriteFile(e.pidFile(), fmt.Appendf(nil, `{"Pid":%d,"Start":1}`, os.Getpid()), 0o600))
	require.NoError(t, e.Up(ctx))
	assert.True(t, e.Ready(ctx))
}

func TestInstancesDoNotCollide(t *testing.T) {
	one, two := located(t, "one"), located(t, "one2")
	ctx := context.Background()
	require.NoError(t, one.Up(ctx))
	require.NoError(t, two.Up(ctx))
	pid := runSleeper(t, two, "sleeper")
	require.NoError(t, one.Down(ctx))
	assert.True(t, two.Ready(ctx))
	assert.True(t, process{Pid: pid}.running())
}

func TestDaemonRestartKeepsContainers(t *testing.T) {
	e := RequireInstance(t, "restart")
	pid := runSleeper(t, e, "sleeper")
	for _, kill := range []bool{false, true} {
		require.NoError(t, e.RestartDaemon(context.Background(), kill))
		now, status, err := e.Task(context.Background(), "sleeper")
		require.NoError(t, err)
		assert.Equal(t, "RUNNING", status)
		assert.Equal(t, pid, now)
	}
}

func TestPodsReachClientsOverBothFamilies(t *testing.T) {
	e := Require(t)
	other := e.NewPod(t)
	for _, pod := range []*Netns{e.Pod(), other} {
		for _, path := range []struct {
			from, to, addr string
		}{
			{e.Client().Path, pod.Path, pod.IP4.String()}, {e.Client().Path, pod.Path, pod.IP6.String()},
			{pod.Path, e.Client().Path, pod.ClientIP4.String()}, {pod.Path, e.Client().Path, pod.ClientIP6.String()},
		} {
			assertReaches(t, path.from, path.to, path.addr)
		}
	}
	assertReaches(t, other.Path, e.Pod().Path, e.Pod().IP6.String())
	assertReaches(t, other.Path, e.Pod().Path, e.Pod().IP4.String())
}

// assertReaches sends bytes over TCP between two namespaces.
func assertReaches(t *testing.T, from, to, addr string) {
	t.Helper()
	var l net.Listener
	require.NoError(t, InNetns(to, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(addr, "0"))
		return err
	}))
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer c.Close()
		data, _ := io.ReadAll(c)
		got <- string(data)
	}()
	require.NoError(t, InNetns(from, func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), time.Minute)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = io.WriteString(c, "hello")
		return err
	}), "%s from %s", addr, from)
	assert.Equal(t, "hello", <-got)
}

func TestTestsShareAndTheLastCleansUp(t *testing.T) {
	e, err := Locate("share")
	require.NoError(t, err)
	var daemon process
	t.Run("two users", func(t *testing.T) {
		RequireInstance(t, "share")
		daemon = e.daemonProcess()
		t.Run("second", func(t *testing.T) { RequireInstance(t, "share") })
		assert.True(t, daemon.alive(), "the first user still needs it")
	})
	assert.False(t, daemon.alive())
	assert.Empty(t, traces(t, e))

	require.NoError(t, e.Up(context.Background()))
	t.Run("kept", func(t *testing.T) { RequireInstance(t, "share") })
	assert.True(t, e.daemonProcess().alive(), "an environment brought up on purpose stays")
	require.NoError(t, e.Down(context.Background()))
}

func TestExecCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds the command first")
	}
	e := located(t, "exec")
	run := func(args ...string) *exec.Cmd {
		return exec.Command(filepath.Join(e.Root, "testing/env/env"), append([]string{"--instance", "exec", "exec"}, args...)...)
	}
	out, err := run("--", "sh", "-c", `echo $CONTAINERD_NAMESPACE; test -e $CRSC_POD_NETNS && test -S $CONTAINERD_ADDRESS && test -e $CRSC_CONFIG && exit 7`).Output()
	assert.Equal(t, e.Namespace+"\n", string(out))
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 7, exit.ExitCode(), "the command's own exit status: %s", exit.Stderr)
	assert.True(t, e.Ready(context.Background()), "the daemon survives exec")

	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := run("--down", "--", "sh", "-c", "echo started; exec sleep 1000")
		pipe, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = io.ReadFull(pipe, make([]byte, len("started\n")))
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Signal(sig))
		require.ErrorAs(t, cmd.Wait(), &exit)
		assert.Equal(t, 128+int(sig), exit.ExitCode())
		assert.Empty(t, traces(t, e), "after %v", unix.SignalName(sig))
	}
}

func TestLocateRefusesBadInstances(t *testing.T) {
	for _, bad := range []string{"A", "a-b", "../x", "thirteenchars"} {
		_, err := Locate(bad)
		assert.Error(t, err, bad)
	}
	elsewhere := t.TempDir()
	t.Setenv("TMPDIR", "/"+strings.Repeat("x", 90))
	_, err := Locate("")
	assert.ErrorContains(t, err, "TMPDIR")
	t.Setenv("CRSC_CLONE", elsewhere)
	_, err = Locate("")
	assert.ErrorIs(t, err, ErrNoClone)
}
