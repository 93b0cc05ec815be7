package shim

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/shim/internal/shimtest"
)

// testStartCrashed: a container that starts as one that has crashed is recovered
// by its guard, and nobody hears of the death of the created init.
func testStartCrashed(t *testing.T, d *shimtest.Daemon, id string) {
	events := d.Events()
	f := runAttached(t, d, id, guarded("crashed"), "sh", "-c", "echo started; sleep 1000")
	awaitOutput(t, f, "started\n")
	_, status := f.row()
	require.Equal(t, "RUNNING", status)
	d.Ctr("task", "exec", "--exec-id", "a", id, "true") // waits for the recovery's end
	require.Regexp(t, "memory", d.Ctr("task", "metrics", id))
	f.crash()
	awaitOutput(t, f, "started\nstarted\n")
	for _, e := range events.Of(id) {
		require.False(t, e.Topic == "/tasks/exit" && e.Fields["id"] == id, "the created init's exit is nobody's business")
	}
	d.Ctr("task", "kill", "-s", "KILL", id)
	require.Equal(t, 137, f.code())
}
