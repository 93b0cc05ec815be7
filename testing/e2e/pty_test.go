package e2e

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// TestTerminalInside: a terminal that a process of the container has made, as tmux
// and sshd do, is that of everybody in its session after a crash: who has the
// session, who is in the foreground and who has opened /dev/tty.
func TestTerminalInside(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	_, err := ociimage.Import(t.Context(), c.e, "python")
	require.NoError(t, err)
	// The first shell has opened /dev/tty for its job control; the one below, too.
	program := "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(['sh', '-c', 'sh; exit 7'])))"
	s := c.runInTerminal(noTriggers("checkpoint-unreplayable", "off"), nil, "python", "python3.11", "-c", program)
	s.shows("# ")
	s.ask("sh", "# ")
	s.ask("echo =$((1000+1))=", "=1001=")
	s.ask("exec 9>/dev/tty; echo =$((1000+2))=", "=1002=")
	c.checkpointAndCrash()
	s.ask("echo =$((1000+3))= >/dev/tty", "=1003=")
	s.ask("echo =$((1000+4))= >&9", "=1004=")
	s.typed("sleep 1000\n")
	c.awaitNow("sleep", func(*status.Status) bool { return slices.Equal(foregroundOf(c.onlyChild()), []string{"sleep"}) })
	for range 2 {
		c.checkpointAndCrash()
		require.Equal(t, []string{"sleep"}, foregroundOf(c.onlyChild()))
	}
	s.typed("\x03")
	s.ask("stty rows 33 cols 111; stty size", "33 111")
	c.checkpointAndCrash()
	s.ask("stty size", "33 111")
	s.typed("exit\n")
	s.ask("echo =$((1000+5))= >/dev/tty", "=1005=")
	c.checkpointAndCrash()
	s.ask("echo =$((1000+6))= >/dev/tty", "=1006=")
	s.typed("exit\n")
	require.Equal(t, 7, s.end())
}
