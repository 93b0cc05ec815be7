package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/shim/internal/shimtest"
)

// container is one that a test runs with ctr.
type container struct {
	*shimtest.Daemon
	t  *testing.T
	id string
}

// runDetached starts a container in the background. flags precede the image.
func runDetached(t *testing.T, d *shimtest.Daemon, runtime, id string, flags []string, args ...string) *container {
	t.Helper()
	d.Ctr(runArgs(runtime, id, append([]string{"-d"}, flags...), args...)...)
	return &container{d, t, id}
}

func runArgs(runtime, id string, flags []string, args ...string) []string {
	all := append([]string{"run", "--runtime", runtime}, flags...)
	return append(append(all, shimtest.Image, id), args...)
}

// row is the container's line of `ctr task ls`: PID and status.
func (c *container) row() (pid, status string) {
	c.t.Helper()
	for _, line := range strings.Split(c.Ctr("task", "ls"), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == c.id {
			return f[1], f[2]
		}
	}
	return "", ""
}

func (c *container) awaitStatus(want string) {
	c.t.Helper()
	shimtest.Eventually(c.t, c.id+" is "+want, func() bool {
		_, status := c.row()
		return status == want
	})
}

// remove kills and deletes the task and the container.
func (c *container) remove() {
	c.t.Helper()
	// An attached ctr deletes the task itself, and the shim may end with it
	// before it has answered somebody else.
	gone := func(err error) bool {
		return err == nil || strings.Contains(err.Error(), "not found") || strings.Contains(err.Error(), "ttrpc: closed")
	}
	if _, status := c.row(); status != "STOPPED" {
		if _, err := c.TryCtr("task", "kill", "-s", "KILL", c.id); !gone(err) {
			c.t.Fatal(err)
		}
	}
	shimtest.Eventually(c.t, c.id+" has stopped", func() bool {
		_, status := c.row()
		return status == "STOPPED" || status == ""
	})
	if _, status := c.row(); status != "" {
		if _, err := c.TryCtr("task", "delete", c.id); !gone(err) {
			c.t.Fatal(err)
		}
	}
	c.Ctr("container", "delete", c.id)
}

// runForeground runs a container to its end.
func runForeground(t *testing.T, d *shimtest.Daemon, stdin, runtime, id string, flags []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return runCtr(t, d, stdin, runArgs(runtime, id, append([]string{"--rm"}, flags...), args...)...)
}

func runCtr(t *testing.T, d *shimtest.Daemon, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := d.Command(ctx, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	require.NoError(t, ctx.Err(), "ctr %v: %s", args, errOut.String())
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// TestTask runs the same scenarios under our shim and under containerd's: what
// is expected of ours is what a user has today.
func TestTask(t *testing.T) {
	d := startDaemon(t)
	scenarios := []struct {
		name string
		run  func(t *testing.T, d *shimtest.Daemon, runtime, id string)
	}{
		{"list, ps, metrics", testInspect},
		{"exit code", testExitCode},
		{"long output", testLongOutput},
		{"stdin", testStdin},
		{"exec", testExec},
		{"exec does not start", testExecFails},
		{"attach", testAttach},
		{"pause", testPause},
		{"checkpoint", testCheckpoint},
		{"log file", testLogFile},
		{"logging binary", testLogBinary},
		{"oom", testOOM},
		{"host pid namespace", testHostPID},
		{"command not found", testNotFound},
		{"delete created", testDeleteCreated},
	}
	for _, runtime := range []string{ours, stock} {
		for i, s := range scenarios {
			t.Run(runtime+"/"+s.name, func(t *testing.T) {
				s.run(t, d.For(t), runtime, fmt.Sprintf("%s-%d", strings.Split(runtime, ".")[2], i))
			})
		}
	}
}

func testInspect(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	c := runDetached(t, d, runtime, id, nil, "sleep", "1000")
	pid, status := c.row()
	require.Equal(t, "RUNNING", status)
	requireRuns(t, pid, "sleep")
	require.Contains(t, d.Ctr("task", "ps", id), pid)
	require.Regexp(t, `memory\.usage_in_bytes +[1-9]|memory\.current +[1-9]`, d.Ctr("task", "metrics", id))
	_, err := d.TryCtr("task", "delete", id)
	require.ErrorContains(t, err, "must be stopped")
	c.remove()
}

// requireRuns waits for a process to run the program: a start is answered
// before runc's init has become it.
func requireRuns(t *testing.T, pid, program string) {
	t.Helper()
	shimtest.Eventually(t, pid+" runs "+program, func() bool {
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		return string(comm) == program+"\n"
	})
}

func testExitCode(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	_, _, code := runForeground(t, d, "", runtime, id, nil, "sh", "-c", "exit 42")
	require.Equal(t, 42, code)
	_, _, code = runForeground(t, d, "", runtime, id, nil, "sh", "-c", "sleep 0.2; trap - TERM; kill -9 $(sh -c 'echo $PPID'); exit 3")
	require.Equal(t, 3, code, "init can't kill itself")
}

// testLongOutput goes through a file, which must have everything when the task
// is deleted, and through ctr. The client library may drop what it has not read
// when the container exits (its Delete closes the fifos first, containerd
// 2.2.9), so there the container waits.
func testLongOutput(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	log := filepath.Join(t.TempDir(), "c.log")
	c := runDetached(t, d, runtime, id+"-file", []string{"--log-uri", "file://" + log}, "seq", "1", "300000")
	c.awaitStatus("STOPPED")
	c.remove()
	requireFile(t, log, seq(300000))
	c = collect(t, d, "", seq(300000), runtime, id, "sh", "-c", "seq 1 300000; sleep 1000")
	c.remove()
}

// collect runs a container with ctr attached until its output is what is
// expected.
func collect(t *testing.T, d *shimtest.Daemon, stdin, want, runtime, id string, args ...string) *container {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := d.Command(ctx, runArgs(runtime, id, nil, args...)...)
	var out shimtest.Buffer
	cmd.Stdin, cmd.Stdout = strings.NewReader(stdin), &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	shimtest.Eventually(t, "all output", func() bool { return len(out.String()) >= len(want) })
	require.Equal(t, want, out.String())
	return &container{d, t, id}
}

func seq(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

func testStdin(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	in := seq(50000)
	c := collect(t, d, in, in+"end\n", runtime, id, "sh", "-c", "cat; echo end; sleep 1000")
	c.remove()
}

func testExec(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	c := runDetached(t, d, runtime, id, nil, "sleep", "1000")
	execWithOutput(t, d, id)
	for i := range 20 {
		// Ends before its start is answered, often enough.
		_, _, code := runCtr(t, d, "", "task", "exec", "--exec-id", fmt.Sprintf("b%d", i), id, "true")
		require.Zero(t, code)
	}
	out, code := runInTerminal(t, d, []string{"stty size; tty\n", "exit 5\n"}, "/dev/pts/", "task", "exec", "-t", "--exec-id", "tty", id, "sh")
	require.Equal(t, 5, code, out)
	require.Contains(t, out, "24 80")
	require.Contains(t, out, "/dev/pts/")
	c.remove()
	out, code = runInTerminal(t, d, []string{"stty size\n", "exit 6\n"}, "24 80", runArgs(runtime, id, []string{"--rm", "-t"}, "sh")...)
	require.Equal(t, 6, code, out)
	require.Contains(t, out, "24 80")
}

// execWithOutput runs an exec with all streams. It ends when its output has come:
// the client library may drop what it has not read by then (see testLongOutput).
func execWithOutput(t *testing.T, d *shimtest.Daemon, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := d.Command(ctx, "task", "exec", "--exec-id", "a", id,
		"sh", "-c", "cat; echo out; echo err >&2; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 7")
	var out, errOut shimtest.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("in"), &out, &errOut
	require.NoError(t, cmd.Start())
	shimtest.Eventually(t, "output of the exec", func() bool { return len(out.String()) >= 6 && len(errOut.String()) >= 4 })
	d.Ctr("task", "exec", "--exec-id", "go", id, "touch", "/tmp/go")
	require.Error(t, cmd.Wait())
	require.NoError(t, ctx.Err())
	require.Equal(t, "inout\n", out.String())
	require.Equal(t, "err\n", errOut.String())
	require.Equal(t, 7, cmd.ProcessState.ExitCode())
}

func testExecFails(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	c := runDetached(t, d, runtime, id, nil, "sleep", "1000")
	_, errOut, code := runCtr(t, d, "", "task", "exec", "--exec-id", "a", id, "no-such-program")
	require.NotZero(t, code)
	require.Contains(t, errOut, "no-such-program")
	_, _, code = runCtr(t, d, "", "task", "exec", "--exec-id", "a", id, "true")
	require.Zero(t, code, "the ID is free again")
	c.remove()
}

func testAttach(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	c := runDetached(t, d, runtime, id, nil, "sh", "-c", "while :; do echo tick; sleep 0.05; done")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := d.Command(ctx, "task", "attach", id)
	var out shimtest.Buffer
	cmd.Stdout = &out
	require.NoError(t, cmd.Start())
	shimtest.Eventually(t, "output of the attached container", func() bool {
		return strings.Count(out.String(), "tick\n") >= 5
	})
	d.Ctr("task", "kill", "-s", "KILL", id)
	require.Error(t, cmd.Wait())
	require.NoError(t, ctx.Err())
	require.Equal(t, 137, cmd.ProcessState.ExitCode())
	_, status := c.row()
	require.Empty(t, status, "ctr deletes the task")
	d.Ctr("container", "delete", id)
}

func testPause(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	c := runDetached(t, d, runtime, id, nil, "sleep", "1000")
	d.Ctr("task", "pause", id)
	_, status := c.row()
	require.Equal(t, "PAUSED", status)
	_, err := d.TryCtr("task", "exec", "--exec-id", "a", id, "true")
	require.ErrorContains(t, err, "paused")
	_, err = d.TryCtr("task", "pause", id)
	require.Error(t, err)
	d.Ctr("task", "resume", id)
	_, status = c.row()
	require.Equal(t, "RUNNING", status)
	_, err = d.TryCtr("task", "resume", id)
	require.Error(t, err)
	d.Ctr("task", "exec", "--exec-id", "b", id, "true")
	c.remove()
}

func testCheckpoint(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	// CRIU's network lock needs iptables, which a host may not have.
	criu := filepath.Join(t.TempDir(), "criu.conf")
	require.NoError(t, os.WriteFile(criu, []byte("network-lock skip\n"), 0o600))
	c := runDetached(t, d, runtime, id, []string{"--null-io", "--annotation", "org.criu.config=" + criu}, "sleep", "1000")
	images := filepath.Join(t.TempDir(), "images")
	d.Ctr("task", "checkpoint", "--image-path", images, id)
	require.FileExists(t, filepath.Join(images, "inventory.img"))
	_, status := c.row()
	require.Equal(t, "RUNNING", status)
	d.Ctr("container", "checkpoint", "--task", id, "localhost/"+id+":cp")
	c.remove()
	d.Ctr("container", "restore", "--live", id, "localhost/"+id+":cp")
	pid, status := c.row()
	require.Equal(t, "RUNNING", status)
	requireRuns(t, pid, "sleep")
	if runtime == ours {
		require.Contains(t, d.Ctr("task", "metrics", id), "memory", "containerd's shim has none after a restore")
	}
	c.remove()
	d.Ctr("image", "rm", "localhost/"+id+":cp")
}

func testLogFile(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	log := filepath.Join(t.TempDir(), "sub", "c.log")
	c := runDetached(t, d, runtime, id, []string{"--log-uri", "file://" + log}, "sh", "-c", "echo out; sleep 0.2; echo err >&2; sleep 1000")
	requireLines(t, log, "out\nerr\n")
	c.remove()
}

// requireLines is requireFile for lines that come by two pipes, which the shim
// may find in any order.
func requireLines(t *testing.T, path, want string) {
	t.Helper()
	sorted := func(s string) []string {
		lines := strings.SplitAfter(s, "\n")
		slices.Sort(lines)
		return lines
	}
	require.Equal(t, sorted(want), sorted(awaitFile(t, path, want)))
}

func requireFile(t *testing.T, path, want string) {
	t.Helper()
	require.Equal(t, want, awaitFile(t, path, want))
}

// awaitFile waits until a file is as long as what is wanted, and returns what is
// in it.
func awaitFile(t *testing.T, path, want string) string {
	t.Helper()
	var got []byte
	shimtest.Eventually(t, "content of "+path, func() bool {
		got, _ = os.ReadFile(path)
		return len(got) >= len(want)
	})
	return string(got)
}

func testLogBinary(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	c := runDetached(t, d, runtime, id, []string{"--log-uri", logBinary(t)}, "sh", "-c", "echo out; echo err >&2; sleep 1000")
	requireFile(t, filepath.Join(logDir(t), "3"), "out\n")
	requireFile(t, filepath.Join(logDir(t), "4"), "err\n")
	requireFile(t, filepath.Join(logDir(t), "id"), id+" "+d.Namespace+"\n")
	c.remove()
}

func testOOM(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	events := d.Events()
	_, _, code := runForeground(t, d, "", runtime, id, []string{"--memory-limit", "20000000"}, "tail", "/dev/zero")
	require.Equal(t, 137, code)
	shimtest.Eventually(t, "OOM event", func() bool {
		return slices.ContainsFunc(events.Of(id), func(e shimtest.Event) bool { return e.Topic == "/tasks/oom" })
	})
}

func testHostPID(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	config := hostPIDSpec(t, d)
	cmd := []string{"run", "-d", "--runtime", runtime, "--config", config, id}
	d.Ctr(cmd...)
	c := &container{d, t, id}
	var child string
	shimtest.Eventually(t, "child of init", func() bool {
		pid, _ := c.row()
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%s/task/%s/children", pid, pid))
		child = strings.TrimSpace(string(data))
		return child != ""
	})
	d.Ctr("task", "kill", "-s", "KILL", id)
	c.awaitStatus("STOPPED")
	shimtest.Eventually(t, "init's child is killed", func() bool {
		_, err := os.Stat("/proc/" + child)
		return os.IsNotExist(err)
	})
	c.remove()
}

func testNotFound(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	_, errOut, code := runForeground(t, d, "", runtime, id, nil, "no-such-program")
	require.NotZero(t, code)
	require.Contains(t, errOut, "no-such-program")
	_, err := d.TryCtr("container", "delete", id)
	require.Error(t, err, "nothing is left")
}

func testDeleteCreated(t *testing.T, d *shimtest.Daemon, runtime, id string) {
	d.Ctr("container", "create", "--runtime", runtime, shimtest.Image, id, "sleep", "1000")
	d.Ctr("task", "start", "-d", id)
	c := &container{d, t, id}
	c.remove()
}
