package e2e

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/load"
)

// terminal is `ctr run -t` in a terminal, and somebody who sits there.
type terminal struct {
	c     *container
	pty   console.Console
	cmd   *exec.Cmd
	out   buffer
	ended chan struct{} // closed when all output has come
}

// runInTerminal runs the container in a terminal of 80 by 24.
func (c *container) runInTerminal(a annotations, flags []string, image string, args ...string) *terminal {
	c.t.Helper()
	pty, slavePath, err := console.NewPty()
	require.NoError(c.t, err)
	t := &terminal{c: c, pty: pty, ended: make(chan struct{})}
	t.resize(80, 24)
	slave, err := os.OpenFile(slavePath, os.O_RDWR, 0)
	require.NoError(c.t, err)
	defer slave.Close()
	run := []string{"run", "--tty", "--runtime", env.RuntimeCRSC, "--with-ns", "network:" + c.pod.Path}
	for k, v := range a {
		run = append(run, "--annotation", k+"="+v)
	}
	run = append(append(run, flags...), ociimage.Ref(image), c.id)
	t.cmd = c.e.Command(c.t.Context(), "ctr", append(run, args...)...)
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = slave, slave, slave
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // it is told of a new size
	require.NoError(c.t, t.cmd.Start())
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Logf("terminal: %q", t.out.String())
		}
		_ = t.cmd.Process.Kill() // it has ended, as a rule
		<-t.ended
		pty.Close()
	})
	go func() {
		defer close(t.ended)
		buf := make([]byte, 4096)
		for {
			n, err := pty.Read(buf)
			_, _ = t.out.Write(buf[:n])
			if err != nil {
				return // EIO: ctr has ended
			}
		}
	}()
	return t
}

func (t *terminal) resize(columns, rows uint16) {
	t.c.t.Helper()
	require.NoError(t.c.t, t.pty.Resize(console.WinSize{Width: columns, Height: rows}))
}

func (t *terminal) typed(s string) {
	t.c.t.Helper()
	_, err := t.pty.Write([]byte(s))
	require.NoError(t.c.t, err)
}

// ask types a command and waits until it has put out what the command line, which
// is echoed, does not contain.
func (t *terminal) ask(command, want string) {
	t.c.t.Helper()
	require.NotContains(t.c.t, command, want)
	before := len(t.out.String())
	t.typed(command + "\n")
	require.Eventually(t.c.t, func() bool { return strings.Contains(t.out.String()[before:], want) }, patience, 5*time.Millisecond, "%s: %s", command, want)
}

// shows waits for the first output.
func (t *terminal) shows(want string) {
	t.c.t.Helper()
	require.Eventually(t.c.t, func() bool { return strings.Contains(t.out.String(), want) }, patience, 5*time.Millisecond, want)
}

// end waits for ctr, and returns its exit status.
func (t *terminal) end() int {
	t.c.t.Helper()
	_ = t.cmd.Wait() // the status tells
	<-t.ended
	return t.cmd.ProcessState.ExitCode()
}

// TestTerminalShell: a shell is the same shell after a crash, for who sits there:
// its variables, the size of the terminal, Ctrl-C, what was typed and not read yet.
// That it is told to exit is no crash.
func TestTerminalShell(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	s := c.runInTerminal(noTriggers(), nil, "busybox", "sh")
	s.shows("# ")
	c.await("protection", func(s *status.Status) bool { return s.Protected })
	c.checkpointAfter(func() { s.ask("v=kept; tty; echo =$((1000+1))=", "=1001=") })
	s.resize(123, 45)
	require.Eventually(t, func() bool {
		return strings.Contains(c.ctr("task", "exec", "--exec-id", "size", c.id, "sh", "-c", "stty size </proc/1/fd/0"), "45 123")
	}, patience, 10*time.Millisecond)
	c.crash()
	s.ask("echo =$v=", "=kept=")
	s.ask("stty size", "45 123")
	// What is typed while this one is being made may be in it, and is no reason for another.
	c.await("the recovery's checkpoint", func(s *status.Status) bool { return s.Checkpoints.Last.Cause == "recovery" })

	s.typed("sleep 1000\n")
	c.awaitNow("sleep", func(*status.Status) bool { return len(c.children()) == 1 })
	s.typed("\x03") // reaches the group in the foreground, and not the shell
	c.checkpointAfter(func() { s.ask("echo =$((1000+2))=", "=1002=") })
	require.Empty(t, c.children())

	s.typed("sleep 1000\n")
	c.awaitNow("sleep", func(*status.Status) bool { return len(c.children()) == 1 })
	s.typed("echo =$((1000+3))=\n")
	c.crsc("checkpoint", c.id)
	c.crash()
	kill(t, c.onlyChild()) // Ctrl-C would forget what was typed behind it
	s.shows("=1003=")
	s.ask("echo =$((1000+4))=", "=1004=")
	require.Equal(t, 1, strings.Count(s.out.String(), "=1003="))

	recoveries := c.status().RecoveryCount
	s.typed("exit 3\n")
	require.Equal(t, 3, s.end())
	require.Equal(t, 2, recoveries)
	c.ctr("container", "rm", c.id)
	c.requireNoTraces()
}

// TestTerminalForeground: what is in the foreground stays there in a crash: Ctrl-C
// reaches it, and a shell in a shell can go on to put jobs there and to open
// /dev/tty.
func TestTerminalForeground(t *testing.T) {
	t.Parallel()
	for program, exit := range map[string]int{
		"sh": 0,
		// The session's leader has not opened /dev/tty, the shell below it has.
		"sh; exit 7": 7,
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			c := newContainer(t)
			s := c.runInTerminal(noTriggers("checkpoint-unreplayable", "off"), nil, "busybox", "sh", "-c", program)
			s.shows("# ")
			s.ask("sh", "# ")
			s.ask("echo =$((1000+1))=", "=1001=")
			c.checkpointAndCrash()
			s.ask("echo =$((1000+2))= >/dev/tty", "=1002=")
			c.checkpointAndCrash()
			s.typed("sleep 1000\n")
			c.awaitNow("sleep", func(*status.Status) bool { return slices.Equal(foregroundOf(c.initPid()), []string{"sleep"}) })
			for range 2 {
				c.checkpointAndCrash()
				require.Equal(t, []string{"sleep"}, foregroundOf(c.initPid()))
			}
			s.typed("\x03")
			s.ask("echo =$((1000+3))=", "=1003=")
			s.typed("exit\n")
			s.ask("echo =$((1000+4))=", "=1004=")
			c.checkpointAndCrash()
			s.typed("exit\n")
			require.Equal(t, exit, s.end())
		})
	}
}

// checkpointAndCrash crashes behind a checkpoint.
func (c *container) checkpointAndCrash() {
	c.t.Helper()
	c.crsc("checkpoint", c.id)
	r := c.crash()
	require.Equal(c.t, 1, r.Attempts, "%+v", r)
}

// foregroundOf names the processes in the foreground of the terminal of an init,
// which is theirs too.
func foregroundOf(init int) (names []string) {
	// proc_pid_stat(5), behind the name: state, parent, group, session, terminal,
	// group in the foreground.
	const group, terminal, foreground = 2, 4, 5
	stat := func(pid int) []string {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return make([]string, foreground+1) // it has ended
		}
		return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	}
	want := stat(init)
	var walk func(pid int)
	walk = func(pid int) {
		if s := stat(pid); s[group] == want[foreground] && s[terminal] == want[terminal] {
			names = append(names, comm(pid))
		}
		for _, child := range childrenOf(pid) {
			walk(child)
		}
	}
	walk(init)
	return names
}

// TestTerminalOutput: each line comes once, also from a start from the beginning.
func TestTerminalOutput(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]annotations{
		"checkpoints": protected("checkpoint-interval", "300ms"),
		"cold start":  noTriggers(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newContainer(t)
			s := c.runInTerminal(a, []string{c.mountApp()}, "busybox", "/app")
			n := c.addAndCrash(c.dialApp(), name == "checkpoints", 4)
			requireOutput(t, added(1, n), func() string {
				out := strings.ReplaceAll(s.out.String(), "\r", "")
				return out[max(0, strings.Index(out, "added")):] // behind what ctr says
			})
			c.ctr("task", "kill", "-s", "SIGTERM", c.id)
			require.Equal(t, 143, s.end())
			c.ctr("container", "rm", c.id)
			c.requireNoTraces()
		})
	}
}

// TestTerminalLoad: a server with a terminal is like one without.
func TestTerminalLoad(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	s := c.runInTerminal(protected("checkpoint-interval", "300ms"), nil, "redis")
	s.shows("Ready to accept connections")
	k := c.dial()
	l := c.drive(load.Options{Connections: 10, Rate: 500})
	for n := range 3 {
		c.awaitCheckpoint()
		time.Sleep(100 * time.Millisecond) // for something to replay
		require.Zero(t, c.crash().Differing)
		require.Equal(t, strconv.Itoa(n+1), k.do("INCR", "n"))
	}
	c.finish(l)
	require.Equal(t, 1, strings.Count(s.out.String(), "Ready to accept connections"))
	s.typed("\x03") // Redis ends in an orderly way
	require.Equal(t, 0, s.end())
}
