package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

const memoryLimit = "99999744" // a whole number of pages

// TestCrashes: systemd has removed the container's unit and cgroups each time when
// it is restored, and it has both again, with the limits.
func TestCrashes(t *testing.T) {
	m := start(t)
	events := m.events()
	limited := cgroups.Mode() != cgroups.Unified // without controllers nothing can be limited
	args := []string{"ctr", "run", "-d", "--runtime", env.RuntimeCRSC, "--runtime-config-path", options,
		"--cgroup", "system.slice:crsc:db", "--with-ns", "network:/run/netns/pod", "--cpu-shares", "0",
		"--annotation", "crsc.io/checkpoint-restore=true", "--annotation", "crsc.io/checkpoint-interval=500ms"}
	if limited {
		args = append(args, "--memory-limit", memoryLimit)
	}
	m.do(append(args, ociimage.Ref("redis"), "db")...)
	m.await("protection", func(s *status.Status) bool { return s.Protected && s.Checkpoints.Count > 0 })
	k := m.dial()
	for round := range 4 {
		if round > 0 {
			m.crash()
		}
		k.count(20)
		m.checkUnit(limited)
		m.do("ctr", "task", "exec", "--exec-id", fmt.Sprint("x", round), "db", "redis-cli", "ping")
		m.do("ctr", "task", "pause", "db")
		require.Contains(t, m.do("ctr", "task", "ls"), "PAUSED")
		m.do("ctr", "task", "resume", "db")
		require.NotEmpty(t, m.do("ctr", "task", "metrics", "db"))
	}
	for _, r := range m.await("its status", func(*status.Status) bool { return true }).Recoveries {
		t.Logf("recovered in %.0f ms", r.TotalMS)
	}
	m.do("ctr", "task", "rm", "-f", "db")
	m.do("ctr", "container", "rm", "db")
	m.eventually("the end of the unit", func() error {
		if out, err := m.try("systemctl", "is-active", unit); err == nil {
			return fmt.Errorf("%s is %s", unit, out)
		}
		return nil
	})
	left, err := filepath.Glob("/sys/fs/cgroup/*/system.slice/" + unit)
	require.NoError(t, err)
	assert.Empty(t, left)
	var said string
	m.eventually("the last event", func() error {
		text, err := os.ReadFile(events)
		if said = string(text); err == nil && !strings.Contains(said, "/tasks/delete") {
			err = fmt.Errorf("containerd's events: %s", said)
		}
		return err
	})
	assert.NotContains(t, said, "/tasks/oom", "the end of a cgroup is not that of its memory")
}

// checkUnit looks at the container's init: it must be in the unit's cgroup of every
// hierarchy, under its limit.
func (m *machine) checkUnit(limited bool) {
	m.t.Helper()
	pid := m.await("a running init", func(s *status.Status) bool { return s.Phase == "running" && s.Pid > 0 }).Pid
	for line := range strings.Lines(m.do("cat", fmt.Sprintf("/proc/%d/cgroup", pid))) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if limited || f[0] == "0" { // else the hierarchies of version 1 are not mounted
			require.Equal(m.t, "/system.slice/"+unit, f[2], "hierarchy %q", f[1])
		}
	}
	require.Equal(m.t, "active", m.do("systemctl", "is-active", unit))
	if limited {
		require.Equal(m.t, memoryLimit, m.do("cat", "/sys/fs/cgroup/memory/system.slice/"+unit+"/memory.limit_in_bytes"))
	}
}
