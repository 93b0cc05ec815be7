package nerdctl

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// terminal is a nerdctl that somebody runs in a terminal.
type terminal struct {
	t     testing.TB
	pty   console.Console
	cmd   *exec.Cmd
	ended chan struct{} // closed when all output has come

	mu  sync.Mutex // guards what follows
	out bytes.Buffer
}

// sit starts nerdctl in a terminal of 80 by 24.
func sit(t testing.TB, args ...string) *terminal {
	t.Helper()
	pty, path, err := console.NewPty()
	require.NoError(t, err)
	require.NoError(t, pty.Resize(console.WinSize{Width: 80, Height: 24}))
	slave, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer slave.Close()
	s := &terminal{t: t, pty: pty, cmd: host.command(t.Context(), args...), ended: make(chan struct{})}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, s.cmd.Start())
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it has ended, as a rule
		<-s.ended
		pty.Close()
		if t.Failed() {
			t.Logf("nerdctl %s: %q", strings.Join(args, " "), s.text())
		}
	})
	go func() {
		defer close(s.ended)
		buf := make([]byte, 4096)
		for {
			n, err := pty.Read(buf)
			s.mu.Lock()
			s.out.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return // EIO: nerdctl has ended
			}
		}
	}()
	return s
}

func (s *terminal) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

func (s *terminal) typed(text string) {
	s.t.Helper()
	_, err := s.pty.Write([]byte(text))
	require.NoError(s.t, err)
}

// ask types a command and waits until it has put out what the command line, which
// is echoed, does not contain.
func (s *terminal) ask(command, want string) {
	s.t.Helper()
	require.NotContains(s.t, command, want)
	before := len(s.text())
	s.typed(command + "\n")
	require.Eventually(s.t, func() bool { return strings.Contains(s.text()[before:], want) }, patience, 5*time.Millisecond, "%s: %s", command, want)
}

// end waits for nerdctl, and returns its exit status.
func (s *terminal) end() int {
	s.t.Helper()
	_ = s.cmd.Wait() // the status tells
	<-s.ended
	return s.cmd.ProcessState.ExitCode()
}

// TestInteractive: who sits at `nerdctl run -it` notices a crash no more than that
// of another container, nor does who goes away and attaches again.
func TestInteractive(t *testing.T) {
	compare(t, func(t *testing.T, side side) []string {
		n := &notes{t: t}
		s := sit(t, append(append([]string{"run", "-it", "--name", "sit"}, side.flags...), ociimage.Ref("busybox"))...)
		remove(t, "sit")
		s.ask("v=kept; echo =$((1000+1))=", "=1001=")
		c := &container{t, "sit", host.nerdctl(t, "inspect", "-f", "{{.ID}}", "sit")}
		require.NoError(t, s.pty.Resize(console.WinSize{Width: 123, Height: 45}))
		require.Eventually(t, func() bool {
			return host.nerdctl(t, "exec", c.name, "sh", "-c", "stty size </proc/1/fd/0") == "45 123"
		}, patience, 10*time.Millisecond)
		side.crash(c)
		s.ask("stty size; echo =$v=", "=kept=")
		assert.Contains(t, s.text(), "45 123")

		s.typed("\x10\x11") // Ctrl-P, Ctrl-Q
		n.add("detached: %d, then %s", s.end(), c.inspect("{{.State.Status}}"))
		side.crash(c)
		s = sit(t, "attach", c.name)
		s.ask("echo =$v=$((1000+2))", "=kept=1002")
		side.crash(c)
		s.ask("echo =$v=$((1000+3))", "=kept=1003")
		s.typed("exit 3\n")
		n.add("the end: %d, then %s", s.end(), c.inspect("{{.State.Status}} {{.State.ExitCode}}"))
		return n.lines
	})
}

const composeTerminal = `services:
  shell:
    image: %s
    runtime: %s
    tty: true
    stdin_open: true
    annotations: {%s}
`

// TestComposeTerminal: a service with a terminal, which compose wants to be started
// from one.
func TestComposeTerminal(t *testing.T) {
	compare(t, func(t *testing.T, side side) []string {
		runtimeName, annotations := "io.containerd.runc.v2", ""
		if side.protected() {
			runtimeName, annotations = runtime, `crsc.io/checkpoint-restore: "true", crsc.io/checkpoint-interval: 500ms`
		}
		n := &notes{t: t}
		dir := filepath.Join(t.TempDir(), "inn")
		require.NoError(t, os.Mkdir(dir, 0o755))
		file := filepath.Join(dir, "compose.yaml")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, composeTerminal, ociimage.Ref("busybox"), runtimeName, annotations), 0o600))
		t.Cleanup(func() {
			if _, err := host.try("compose", "-f", file, "down"); err != nil {
				t.Error(err)
			}
		})
		s := sit(t, "compose", "-f", file, "up") // holds its lock until the end
		s.ask("v=kept; echo =$((1000+1))=", "=1001=")
		c := &container{t, "inn-shell-1", host.nerdctl(t, "inspect", "-f", "{{.ID}}", "inn-shell-1")}
		side.crash(c)
		s.ask("echo =$v=$((1000+2))", "=kept=1002")
		s.typed("exit 3\n")
		n.add("the end: %d, then %s", s.end(), c.inspect("{{.State.Status}} {{.State.ExitCode}}"))
		return n.lines
	})
}
