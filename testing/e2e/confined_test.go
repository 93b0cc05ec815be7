package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/load"
)

// TestConfined: an ordinary user without capabilities, with a seccomp profile
// and a read-only root file system, as Kubernetes' restricted policy wants it,
// is protected like any other; and a crash changes nothing of that.
func TestConfined(t *testing.T) {
	t.Parallel()
	flags := []string{"--user", "999:1000", "--seccomp", "--read-only"}
	for _, name := range droppable() {
		flags = append(flags, "--cap-drop", name)
	}
	c := newContainer(t).run("redis", protected("checkpoint-interval", "300ms"), flags)
	k := c.dial()
	c.awaitCheckpoint()
	before := confinement(t, c.initPid())
	require.Equal(t, "999 999 999 999", before["Uid"])
	require.Equal(t, "2", before["Seccomp"])
	require.Equal(t, "1", before["NoNewPrivs"])
	require.Equal(t, strings.Repeat("0", 16), before["CapBnd"])
	clients := c.drive(load.Options{Connections: 10, Rate: 500})
	for i := range 3 {
		time.Sleep(200 * time.Millisecond)
		r := c.crash()
		require.NotZero(t, r.Checkpoint)
		require.Zero(t, r.Reset)
		require.Equal(t, strconv.Itoa(i+1), k.do("INCR", "kept"))
		require.Equal(t, before, confinement(t, c.initPid()))
	}
	c.finish(clients)
	_, err := c.e.Ctr(t.Context(), "task", "exec", "--exec-id", "x", c.id, "touch", "/file")
	require.Error(t, err, "the root file system is still read-only")
}

// droppable are the capabilities that containerd gives by default.
func droppable() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// confinement is what /proc/PID/status tells of a process's rights.
func confinement(t testing.TB, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters":
			out[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	return out
}
