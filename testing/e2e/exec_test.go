package e2e

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
)

// shell is a shell in the container, with a terminal, that somebody types in.
type shell struct {
	t     testing.TB
	input io.WriteCloser
	lines *bufio.Scanner
}

// openShell is `ctr task exec -t` in a terminal.
func (c *container) openShell() *shell {
	c.t.Helper()
	cmd := c.e.Command(c.t.Context(), "script", "-qefc", "ctr task exec -t --exec-id shell "+c.id+" sh", "/dev/null")
	s := &shell{t: c.t}
	var err error
	s.input, err = cmd.StdinPipe()
	require.NoError(c.t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(c.t, err)
	s.lines = bufio.NewScanner(out)
	require.NoError(c.t, cmd.Start())
	c.t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, as a rule
	return s
}

// ask types an arithmetic expression, and reads until its value is there: what
// is typed is echoed, the value is not in it.
func (s *shell) ask(n int) {
	s.t.Helper()
	_, err := fmt.Fprintf(s.input, "echo =$((%d+1000))=\n", n)
	require.NoError(s.t, err)
	for want := fmt.Sprintf("=%d=", n+1000); s.lines.Scan(); {
		if strings.Contains(s.lines.Text(), want) {
			return
		}
	}
	s.t.Fatalf("the shell has ended: %v", s.lines.Err())
}

// TestSessions: a shell that somebody keeps open, and a probe that is executed
// again and again, neither hold checkpoints up nor are disturbed by them; and a
// crash is recovered all the same.
func TestSessions(t *testing.T) {
	t.Parallel()
	c := redis(t, protected("checkpoint-interval", "250ms"))
	k := c.dial()
	sh := c.openShell()
	sh.ask(0)
	before := c.status().Checkpoints
	probes := 0
	for ; probes < 12; probes++ {
		require.Equal(t, "PONG\n", c.ctr("task", "exec", "--exec-id", "probe"+strconv.Itoa(probes), c.id, "redis-cli", "ping"))
		sh.ask(probes + 1)
		require.Equal(t, strconv.Itoa(probes+1), k.do("INCR", "n"))
		time.Sleep(100 * time.Millisecond)
	}
	after := c.await("checkpoints beside the sessions", func(s *status.Status) bool { return s.Checkpoints.Count >= before.Count+5 }).Checkpoints
	require.Equal(t, before.Failed, after.Failed, after.LastError)
	c.await("the open session", func(s *status.Status) bool { return s.Unreplayable == "an exec session is open" })
	require.Zero(t, c.crash().Reset)
	require.Equal(t, strconv.Itoa(probes+1), k.do("INCR", "n"))
	for sh.lines.Scan() { // the session ends with the processes it was in
	}
	require.Equal(t, "PONG\n", c.ctr("task", "exec", "--exec-id", "again", c.id, "redis-cli", "ping"))
}
