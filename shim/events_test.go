package shim

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/shim/internal/shimtest"
)

// TestEvents compares the events of the same scenario under our shim and
// containerd's: order, topics and contents.
func TestEvents(t *testing.T) {
	d := startDaemon(t)
	events := d.Events()
	ourEvents := scenarioEvents(t, d, events, ours, "ours")
	require.Equal(t, "/tasks/delete", ourEvents[len(ourEvents)-1].Topic)
	// containerd's shim may end before it has published its last event.
	for i := range 5 {
		theirs := scenarioEvents(t, d, events, stock, fmt.Sprintf("theirs-%d", i))
		if theirs[len(theirs)-1].Topic == "/tasks/delete" {
			require.Equal(t, theirs, ourEvents)
			return
		}
	}
	t.Fatal("containerd's shim publishes no deletion")
}

func scenarioEvents(t *testing.T, d *shimtest.Daemon, events *shimtest.Events, runtime, id string) []shimtest.Event {
	t.Helper()
	c := runDetached(t, d, runtime, id, nil, "sleep", "1000")
	d.Ctr("task", "exec", "--exec-id", "first", id, "true")
	_, _, code := runCtr(t, d, "", "task", "exec", "--exec-id", "second", id, "sh", "-c", "exit 9")
	require.Equal(t, 9, code)
	d.Ctr("task", "pause", id)
	d.Ctr("task", "resume", id)
	// An exec that dies with init: its exit comes first.
	d.Ctr("task", "exec", "-d", "--exec-id", "third", id, "sleep", "1000")
	d.Ctr("task", "kill", "-s", "KILL", id)
	c.awaitStatus("STOPPED")
	c.remove()
	got := events.Await(id, "/tasks/delete")
	require.NotEmpty(t, got)
	for _, e := range got {
		normalise(e.Fields, d, id)
	}
	return got
}

// normalise hides what differs between any two runs.
func normalise(fields map[string]any, d *shimtest.Daemon, id string) {
	for k, v := range fields {
		switch v := v.(type) {
		case map[string]any:
			if k == "exited_at" {
				fields[k] = "TIME"
			} else {
				normalise(v, d, id)
			}
		case []any:
			for _, e := range v {
				if m, ok := e.(map[string]any); ok {
					normalise(m, d, id)
				}
			}
			if k == "options" { // of the root filesystem's mount
				fields[k] = len(v)
			}
		case float64:
			if k == "pid" && v > 0 {
				fields[k] = "PID"
			}
		case string:
			switch {
			case v == id:
				fields[k] = "ID"
			case strings.Contains(v, d.Dir), strings.Contains(v, "/fifo/"), strings.HasPrefix(v, "/run/"):
				fields[k] = "PATH"
			}
		}
	}
}
