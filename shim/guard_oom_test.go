package shim

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/shim/internal/shimtest"
)

// testOOMAfterRecovery: a recovery makes no OOM event, an OOM after it does.
func testOOMAfterRecovery(t *testing.T, d *shimtest.Daemon, id string) {
	events := d.Events()
	flags := append(guarded("restart"), "--memory-limit", "20000000")
	c := runDetached(t, d, ours, id, flags, "sh", "-c", "sleep 1000")
	oom := func() (n int) {
		for _, e := range events.Of(id) {
			if e.Topic == "/tasks/oom" {
				n++
			}
		}
		return n
	}
	c.crash()
	c.crash()
	require.Zero(t, oom())
	_, _, code := runCtr(t, d, "", "task", "exec", "--exec-id", "hog", id, "tail", "/dev/zero")
	require.Equal(t, 137, code)
	shimtest.Eventually(t, "OOM event", func() bool { return oom() > 0 })
	c.remove()
}

// testOOMTold: the guard learns why init was killed.
func testOOMTold(t *testing.T, d *shimtest.Daemon, id string) {
	flags := append(guarded("oom"), "--memory-limit", "20000000")
	f := runAttached(t, d, id, flags, "sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; exec tail /dev/zero")
	f.crash()
	_, _ = d.TryCtr("task", "exec", "--exec-id", "go", id, "touch", "/tmp/go") // the OOM killer may take it, too
	require.Equal(t, 137, f.code())
}
