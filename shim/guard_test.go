package shim

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/shim/internal/shimtest"
)

func guarded(traits string) []string {
	return []string{"--annotation", guardAnnotation + "=" + traits}
}

// crash kills init from outside, as a crash would, and waits for its successor.
func (c *container) crash() {
	c.t.Helper()
	old := c.killInit()
	shimtest.Eventually(c.t, "a new init of "+c.id, func() bool {
		pid, status := c.row()
		require.Equal(c.t, "RUNNING", status)
		return pid != old
	})
}

func (c *container) killInit() (pid string) {
	c.t.Helper()
	pid, status := c.row()
	require.Equal(c.t, "RUNNING", status)
	n, err := strconv.Atoi(pid)
	require.NoError(c.t, err)
	require.NoError(c.t, syscall.Kill(n, syscall.SIGKILL))
	return pid
}

// foreground runs a container with ctr attached until the test ends or it does.
type foreground struct {
	container
	out, err shimtest.Buffer
	done     chan error
}

func runAttached(t *testing.T, d *shimtest.Daemon, id string, flags []string, args ...string) *foreground {
	t.Helper()
	f := &foreground{container: container{d, t, id}, done: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	cmd := d.Command(ctx, runArgs(ours, id, append([]string{"--rm"}, flags...), args...)...)
	cmd.Stdout, cmd.Stderr = &f.out, &f.err
	require.NoError(t, cmd.Start())
	go func() { f.done <- cmd.Wait() }()
	t.Cleanup(cancel)
	shimtest.Eventually(t, id+" runs", func() bool {
		_, status := f.row()
		return status == "RUNNING"
	})
	return f
}

// code waits for ctr, which ends with the task's status.
func (f *foreground) code() int {
	f.t.Helper()
	select {
	case err := <-f.done:
		f.done <- err
		if err == nil {
			return 0
		}
		var code int
		_, serr := fmt.Sscanf(err.Error(), "exit status %d", &code)
		require.NoError(f.t, serr, err.Error())
		return code
	case <-time.After(time.Minute):
		f.t.Fatal("ctr does not end")
		return 0
	}
}

// TestHundredRecoveries kills init a hundred times: the task lives on, its wait
// is pending, its output flows, and the shim does not grow.
func TestHundredRecoveries(t *testing.T) {
	d := startDaemon(t)
	f := runAttached(t, d, "c", guarded("restart"), "sh", "-c", "echo started $GUARDED; sleep 1000")
	shim := d.ShimPid("c")
	crash := func(n int) {
		f.crash()
		// A run that has not written before it dies would be missed.
		awaitOutput(t, f, strings.Repeat("started yes\n", n+1))
	}
	for n := range 5 {
		crash(n + 1)
	}
	fds, goroutines := openFiles(t, shim), goroutinesOf(t, d, shim)
	for n := range 95 {
		crash(n + 6)
	}
	require.Empty(t, f.done, "ctr still waits")
	require.LessOrEqual(t, openFiles(t, shim), fds, "descriptors")
	require.LessOrEqual(t, goroutinesOf(t, d, shim), goroutines+3, "goroutines")
	require.Regexp(t, `memory`, d.Ctr("task", "metrics", "c"))
	d.Ctr("task", "exec", "--exec-id", "a", "c", "true")
	d.Ctr("task", "kill", "-s", "KILL", "c")
	require.Equal(t, 137, f.code())
}

// openFiles counts a process's descriptors when nothing is under way: the
// least number over some time. It leaves out the pidfds that os/exec holds of
// children that were reaped, until the next garbage collection.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	least := math.MaxInt
	for range 20 {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		files, err := os.ReadDir(dir)
		require.NoError(t, err)
		n := 0
		for _, f := range files {
			if to, err := os.Readlink(filepath.Join(dir, f.Name())); err == nil && !strings.Contains(to, "pidfd") {
				n++
			}
		}
		least = min(least, n)
		time.Sleep(25 * time.Millisecond)
	}
	return least
}

// goroutinesOf counts the goroutines in the dump that a shim logs on SIGUSR1.
func goroutinesOf(t *testing.T, d *shimtest.Daemon, pid int) int {
	t.Helper()
	dumps := func() []string {
		log, err := os.ReadFile(d.Log)
		require.NoError(t, err)
		return regexp.MustCompile(`(?s)BEGIN goroutine stack dump.*?END goroutine stack dump`).FindAllString(string(log), -1)
	}
	before := len(dumps())
	require.NoError(t, syscall.Kill(pid, syscall.SIGUSR1))
	var all []string
	shimtest.Eventually(t, "goroutine dump", func() bool {
		all = dumps()
		return len(all) > before
	})
	return len(regexp.MustCompile(`goroutine \d+ \[`).FindAllString(all[len(all)-1], -1))
}

// TestRecovery has one scenario for each thing that may happen around a crash.
func TestRecovery(t *testing.T) {
	d := startDaemon(t)
	for _, s := range []struct {
		name string
		run  func(t *testing.T, d *shimtest.Daemon, id string)
	}{
		{"kill wins", testKillWins},
		{"signal reaches the new init", testSignalDelivered},
		{"requests meanwhile", testRequestsMeanwhile},
		{"output is not written twice", testSwallow},
		{"logs", testGuardedLogs},
		{"stdin goes on", testGuardedStdin},
		{"failed recovery", testFailedRecovery},
		{"orderly exit", testOrderlyExit},
		{"unprepared", testUnprepared},
		{"refused", testRefused},
		{"start instead", testStartInstead},
		{"start crashed", testStartCrashed},
		{"no start", testNoStart},
		{"terminal", testGuardedTerminal},
		{"host pid namespace", testGuardedHostPID},
		{"execs die with init", testExecsDie},
		{"oom after recovery", testOOMAfterRecovery},
		{"oom is told", testOOMTold},
	} {
		t.Run(s.name, func(t *testing.T) {
			s.run(t, d.For(t), strings.ReplaceAll(s.name, " ", "-"))
		})
	}
}

func testKillWins(t *testing.T, d *shimtest.Daemon, id string) {
	events := d.Events()
	c := runDetached(t, d, ours, id, guarded("held"), "sleep", "1000")
	c.killInit()
	time.Sleep(100 * time.Millisecond)
	d.Ctr("task", "kill", "-s", "KILL", id)
	c.awaitStatus("STOPPED") // although the recovery has not ended
	c.remove()
	got := events.Await(id, "/tasks/delete")
	require.Equal(t, "/tasks/exit", got[len(got)-2].Topic)
	require.EqualValues(t, 137, got[len(got)-2].Fields["exit_status"])
}

// proceed lets a guard with the trait "held" recover the container.
func (c *container) proceed() {
	bundle := filepath.Join(c.Dir, "state", "io.containerd.runtime.v2.task", c.Namespace, c.id)
	if err := os.WriteFile(filepath.Join(bundle, "proceed"), nil, 0o600); err != nil {
		c.t.Error(err)
	}
}

func testSignalDelivered(t *testing.T, d *shimtest.Daemon, id string) {
	c := runDetached(t, d, ours, id, guarded("held"), "sh", "-c", "trap 'exit 42' TERM; while :; do sleep 0.05; done")
	c.killInit()
	time.Sleep(100 * time.Millisecond)
	d.Ctr("task", "kill", "-s", "TERM", id)
	_, status := c.row()
	require.Equal(t, "RUNNING", status)
	c.proceed()
	// The new init may get the signal before its trap is set and then, being
	// PID 1, ignore it: what counts is that a later one still ends it.
	shimtest.Eventually(t, "stopped by TERM", func() bool {
		_, status := c.row()
		if status == "STOPPED" {
			return true
		}
		_, _ = d.TryCtr("task", "kill", "-s", "TERM", id)
		return false
	})
	_, errOut, _ := runCtr(t, d, "", "task", "delete", id)
	require.Contains(t, errOut, "exit code 42")
	d.Ctr("container", "delete", id)
}

func testRequestsMeanwhile(t *testing.T, d *shimtest.Daemon, id string) {
	c := runDetached(t, d, ours, id, guarded("held"), "sleep", "1000")
	before := d.Ctr("task", "metrics", id)
	old := c.killInit()
	time.Sleep(100 * time.Millisecond)
	pid, status := c.row()
	require.Equal(t, "RUNNING", status)
	require.Equal(t, old, pid)
	_, err := d.TryCtr("task", "ps", id)
	require.NoError(t, err)
	require.Equal(t, strings.Count(before, "\n"), strings.Count(d.Ctr("task", "metrics", id), "\n"))
	_, err = d.TryCtr("task", "delete", id)
	require.ErrorContains(t, err, "must be stopped")
	// Waits for the end of the recovery.
	go func() {
		time.Sleep(500 * time.Millisecond)
		c.proceed()
	}()
	_, _, code := runCtr(t, d, "", "task", "exec", "--exec-id", "a", id, "true")
	require.Zero(t, code)
	pid, status = c.row()
	require.Equal(t, "RUNNING", status)
	require.NotEqual(t, old, pid)
	require.Contains(t, d.Ctr("task", "ps", id), pid)
	d.Ctr("task", "pause", id)
	d.Ctr("task", "resume", id)
	c.remove()
}

// testSwallow runs a program that writes the same each time, with its run in
// a file that survives: what comes twice is dropped, what is new is not.
func testSwallow(t *testing.T, d *shimtest.Daemon, id string) {
	program := `
n=$(cat /tmp/n 2>/dev/null || echo 0); echo $((n+1)) >/tmp/n
for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done
[ $n -ge 1 ] && echo out 6; printf 'unfinished'
[ $n -ge 2 ] && echo ' line'
sleep 1000`
	f := runAttached(t, d, id, guarded("swallow"), "sh", "-c", program)
	five := "out 1\nout 2\nout 3\nout 4\nout 5\n"
	awaitOutput(t, f, five+"unfinished")
	f.crash()
	// The unfinished line is where "out 6" now comes: its end is kept.
	awaitOutput(t, f, five+"unfinished\nunfinished")
	f.crash()
	awaitOutput(t, f, five+"unfinished\nunfinished line\n")
	require.Equal(t, strings.ReplaceAll(five, "out", "err"), f.err.String())
	d.Ctr("task", "kill", "-s", "KILL", id)
	require.Equal(t, 137, f.code())
}

func awaitOutput(t *testing.T, f *foreground, want string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); f.out.String() != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			require.Equal(t, want, f.out.String())
		}
	}
}

func testGuardedLogs(t *testing.T, d *shimtest.Daemon, id string) {
	log := filepath.Join(t.TempDir(), "c.log")
	flags := append(guarded("swallow"), "--log-uri", "file://"+log)
	c := runDetached(t, d, ours, id+"-file", flags, "sh", "-c", "echo one; sleep 0.1; echo two >&2; sleep 1000")
	requireLines(t, log, "one\ntwo\n")
	c.crash()
	time.Sleep(300 * time.Millisecond)
	requireLines(t, log, "one\ntwo\n")
	c.remove()

	flags = append(guarded("restart"), "--log-uri", logBinary(t))
	c = runDetached(t, d, ours, id+"-binary", flags, "sh", "-c", "echo one; echo two >&2; sleep 1000")
	requireFile(t, filepath.Join(logDir(t), "3"), "one\n")
	c.crash()
	requireFile(t, filepath.Join(logDir(t), "3"), "one\none\n")
	requireFile(t, filepath.Join(logDir(t), "4"), "two\ntwo\n")
	c.remove()
}

func testGuardedStdin(t *testing.T, d *shimtest.Daemon, id string) {
	in, feed, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	defer feed.Close()
	var out shimtest.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := d.Command(ctx, runArgs(ours, id, append([]string{"--rm"}, guarded("restart")...),
		"sh", "-c", "while read line; do echo got $line; done; exit 42")...)
	cmd.Stdin, cmd.Stdout = in, &out
	require.NoError(t, cmd.Start())
	c := &container{d, t, id}
	shimtest.Eventually(t, "running", func() bool { _, s := c.row(); return s == "RUNNING" })
	var want strings.Builder
	for i := range 5 {
		fmt.Fprintln(feed, i)
		fmt.Fprintf(&want, "got %d\n", i)
		shimtest.Eventually(t, "echo of a line", func() bool { return out.String() == want.String() })
		c.crash()
	}
	require.NoError(t, feed.Close())
	require.Error(t, cmd.Wait())
	require.Equal(t, 42, cmd.ProcessState.ExitCode(), "stdin ends")
}

func testFailedRecovery(t *testing.T, d *shimtest.Daemon, id string) {
	f := runAttached(t, d, id, guarded("fail"), "sleep", "1000")
	f.killInit()
	require.Equal(t, 137, f.code())
	shimtest.Eventually(t, "ctr has removed the task", func() bool { _, status := f.row(); return status == "" })
}

func testOrderlyExit(t *testing.T, d *shimtest.Daemon, id string) {
	_, _, code := runForeground(t, d, "", ours, id, guarded("restart"), "sh", "-c", "exit 42")
	require.Equal(t, 42, code)
	log := filepath.Join(t.TempDir(), "c.log")
	c := runDetached(t, d, ours, id, append(guarded("restart"), "--log-uri", "file://"+log), "seq", "1", "100000")
	c.awaitStatus("STOPPED")
	c.remove()
	requireFile(t, log, seq(100000))
}

func testUnprepared(t *testing.T, d *shimtest.Daemon, id string) {
	f := runAttached(t, d, id, guarded("prepare"), "sh", "-c", "echo ${GUARDED:-no}; sleep 1000")
	awaitOutput(t, f, "no\n")
	f.killInit()
	require.Equal(t, 137, f.code())
}

func testRefused(t *testing.T, d *shimtest.Daemon, id string) {
	for traits, says := range map[string]string{"refuse": "refused by the test's guard", "deny": "not this one", "late": "not this one"} {
		_, errOut, code := runForeground(t, d, "", ours, id, guarded(traits), "true")
		require.NotZero(t, code, traits)
		require.Contains(t, errOut, says)
		require.NotContains(t, d.Ctr("task", "ls"), id)
	}
}

// testStartInstead: a container whose processes the guard has made is like any
// other.
func testStartInstead(t *testing.T, d *shimtest.Daemon, id string) {
	events := d.Events()
	f := runAttached(t, d, id, guarded("instead"), "sh", "-c", "echo started; read line; echo got $line; sleep 1000")
	awaitOutput(t, f, "started\n")
	pid, status := f.row()
	require.Equal(t, "RUNNING", status)
	var create, start uint64
	events.Await(id, "/tasks/start")
	for _, e := range events.Of(id) {
		switch e.Topic {
		case "/tasks/create":
			create = uint64(e.Fields["pid"].(float64))
		case "/tasks/start":
			start = uint64(e.Fields["pid"].(float64))
		case "/tasks/exit":
			require.Fail(t, "the created init's exit is nobody's business")
		}
	}
	require.Equal(t, pid, strconv.FormatUint(start, 10))
	require.NotEqual(t, create, start)
	require.Regexp(t, "memory", d.Ctr("task", "metrics", id))
	d.Ctr("task", "exec", "--exec-id", "a", id, "true")
	f.crash()
	d.Ctr("task", "kill", "-s", "KILL", id)
	require.Equal(t, 137, f.code())
}

// testNoStart: when the guard can't make the processes the start fails, and the
// container can be removed.
func testNoStart(t *testing.T, d *shimtest.Daemon, id string) {
	_, errOut, code := runForeground(t, d, "", ours, id, guarded("instead fail"), "true")
	require.NotZero(t, code)
	require.Contains(t, errOut, "no luck")
	require.NotContains(t, d.Ctr("task", "ls"), id)
}

// testGuardedTerminal: the terminal of the second init is the client's, with its
// size and with what was typed before it was there.
func testGuardedTerminal(t *testing.T, d *shimtest.Daemon, id string) {
	out, code := runInTerminal(t, d, []string{"exit 7\n", "tty; stty size; exit 42\n"}, "",
		runArgs(ours, id, append([]string{"--rm", "-t"}, guarded("restart")...), "sh")...)
	require.Equal(t, 42, code, out)
	require.Contains(t, out, "/dev/pts/")
	require.Contains(t, out, "24 80")
}

func testGuardedHostPID(t *testing.T, d *shimtest.Daemon, id string) {
	config := hostPIDSpec(t, d)
	addAnnotation(t, config, guardAnnotation, "restart")
	d.Ctr("run", "-d", "--runtime", ours, "--config", config, id)
	c := &container{d, t, id}
	time.Sleep(200 * time.Millisecond)
	c.crash()
	c.crash()
	shimtest.Eventually(t, "init and its child, nothing from before", func() bool {
		return strings.Count(strings.TrimSpace(d.Ctr("task", "ps", id)), "\n") == 2
	})
	c.remove()
}

func testExecsDie(t *testing.T, d *shimtest.Daemon, id string) {
	events := d.Events()
	c := runDetached(t, d, ours, id, guarded("restart"), "sleep", "1000")
	d.Ctr("task", "exec", "-d", "--exec-id", "dies", id, "sleep", "1000")
	c.crash()
	got := events.Await(id, "/tasks/exit")
	last := got[len(got)-1]
	require.Equal(t, "/tasks/exit", last.Topic)
	require.Equal(t, "dies", last.Fields["id"])
	require.EqualValues(t, 137, last.Fields["exit_status"])
	for _, e := range got {
		require.NotEqual(t, id, e.Fields["id"], "init's exit is withheld")
	}
	c.remove()
}
