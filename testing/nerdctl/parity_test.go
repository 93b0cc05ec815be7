package nerdctl

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
)

// side is a runtime, and what its containers go through: ours crash.
type side struct {
	name  string
	flags []string
}

func sides() [2]side {
	return [2]side{{"runc", []string{"--runtime", "io.containerd.runc.v2"}}, {"crsc", protect()}}
}

func (s side) protected() bool { return s.name == "crsc" }

// crash lets the container crash once a checkpoint has all that was done to it.
func (s side) crash(c *container) {
	c.t.Helper()
	if s.protected() {
		c.settle()
		c.crash()
	}
}

// settle waits for a checkpoint that begins after now.
func (c *container) settle() {
	c.t.Helper()
	last := 0
	c.await("a checkpoint", func(s *status.Status) bool {
		if s.Checkpoints.Last == nil {
			return false
		}
		if last == 0 {
			last = int(s.Checkpoints.Last.Sequence)
		}
		return int(s.Checkpoints.Last.Sequence) >= last+2
	})
}

// compare does the same with both runtimes; what a user sees must be the same.
func compare(t *testing.T, scenario func(t *testing.T, s side) []string) {
	var seen [2][]string
	for i, s := range sides() {
		ok := t.Run(s.name, func(t *testing.T) { seen[i] = scenario(t, s) })
		require.True(t, ok)
	}
	assert.Equal(t, seen[0], seen[1])
}

// notes is what a user of a container has seen.
type notes struct {
	t     testing.TB
	lines []string
}

func (n *notes) add(format string, args ...any) {
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
}

// ran adds the output of a command.
func (n *notes) ran(args ...string) {
	n.t.Helper()
	n.add("%s: %s", strings.Join(args, " "), host.nerdctl(n.t, args...))
}

const worker = `trap 'echo told; exit 7' TERM; trap 'echo poked' USR1; mkdir -p /made; echo begun >/made/begun; while :; do sleep 0.1; done`

// TestCommands goes through nerdctl's commands on a container, before a crash and
// after it.
func TestCommands(t *testing.T) {
	compare(t, func(t *testing.T, s side) []string {
		c := run(t, "worker", append(s.flags, "--memory=200m", "--health-cmd=test -e /made/begun", "--health-interval=1h"), "busybox", "-c", worker)
		if s.protected() {
			c.awaitProtected()
		}
		n := &notes{t: t}
		for round := range 2 {
			n.add("round %d", round)
			n.copied(c, round)
			n.looked(c)
			n.changed(c, round)
			s.crash(c)
			n.limits(c)
		}
		n.committed(c)
		n.ran("stop", c.name)
		n.add("exit code %s", c.inspect("{{.State.ExitCode}}"))
		n.add("logs: %s", host.nerdctl(t, "logs", c.name))
		return n.lines
	})
}

// copied takes a file in and out, and reads those of the rounds before.
func (n *notes) copied(c *container, round int) {
	n.t.Helper()
	dir := n.t.TempDir()
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	require.NoError(n.t, os.WriteFile(there, fmt.Appendf(nil, "round %d", round), 0o640))
	host.nerdctl(n.t, "cp", there, c.name+":"+fmt.Sprintf("/made/%d", round))
	host.nerdctl(n.t, "cp", c.name+":"+fmt.Sprintf("/made/%d", round), back)
	got, err := os.ReadFile(back)
	require.NoError(n.t, err)
	n.add("copied %s", got)
	n.ran("exec", c.name, "sh", "-c", "cd /made && stat -c '%n %a %s' * && cat *")
}

// looked looks at it in all ways.
func (n *notes) looked(c *container) {
	n.t.Helper()
	n.add("top: %s", commands(host.nerdctl(n.t, "top", c.name)))
	var stats []string
	require.Eventually(n.t, func() bool { // nerdctl prints zeros for what has not come within a second
		stats = strings.Fields(host.nerdctl(n.t, "stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", c.name))
		return len(stats) == 5 && stats[1] != "0" && stats[2] != "0B" // name, processes, used / limit
	}, patience, 10*time.Millisecond)
	n.add("stats: %s, of %s", stats[0], stats[4])
	n.add("state: %s", c.inspect("{{.Name}} {{.State.Status}} {{.State.Running}} {{.State.Paused}} {{.State.ExitCode}} {{.RestartCount}}"))
	host.nerdctl(n.t, "container", "healthcheck", c.name)
	n.add("health: %s", c.inspect("{{.State.Health.Status}} {{.State.Health.FailingStreak}}"))
	n.add("changes: %s", host.nerdctl(n.t, "diff", c.name))
	n.ran("ps", "--filter", "name="+c.name, "--format", "{{.Names}} {{.Command}}")
}

// commands are those in the output of top, without what differs from one look to
// the next.
func commands(top string) string {
	var out []string
	for _, line := range strings.Split(top, "\n")[1:] {
		f := strings.Fields(line)
		if cmd := strings.Join(f[min(7, len(f)):], " "); !strings.HasPrefix(cmd, "sleep") {
			out = append(out, cmd)
		}
	}
	return strings.Join(out, "; ")
}

// changed does to it what changes it.
func (n *notes) changed(c *container, round int) {
	n.t.Helper()
	n.ran("pause", c.name)
	n.add("paused: %s", c.inspect("{{.State.Status}}"))
	n.ran("unpause", c.name)
	n.add("unpaused: %s", c.inspect("{{.State.Status}}"))
	host.nerdctl(n.t, "kill", "-s", "USR1", c.name)
	require.Eventually(n.t, func() bool {
		return strings.Count(host.nerdctl(n.t, "logs", c.name), "poked") == round+1
	}, patience, 50*time.Millisecond)
	host.nerdctl(n.t, "update", fmt.Sprintf("--memory=%dm", 100+round), "--cpu-shares", fmt.Sprint(500+round), "--pids-limit", fmt.Sprint(50+round), c.name)
	n.limits(c)
	name := fmt.Sprintf("%s-%d", strings.Split(c.name, "-")[0], round)
	host.nerdctl(n.t, "rename", c.name, name)
	c.name = name
	remove(n.t, name)
}

// limits are those in force, as the kernel has them.
func (n *notes) limits(c *container) {
	n.t.Helper()
	n.add("limits: %s", host.nerdctl(n.t, "exec", c.name, "sh", "-c",
		"cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.shares pids/pids.max"))
}

// committed makes an image of it, and an archive.
func (n *notes) committed(c *container) {
	n.t.Helper()
	image := "localhost/committed:" + strings.ToLower(c.name)
	host.nerdctl(n.t, "commit", c.name, image)
	n.t.Cleanup(func() {
		if _, err := host.try("rmi", "-f", image); err != nil {
			n.t.Error(err)
		}
	})
	n.add("still: %s", c.inspect("{{.State.Status}}"))
	n.add("image: %s", host.nerdctl(n.t, "run", "--rm", "--net=none", "--entrypoint", "/bin/sh", image, "-c", "cd /made && cat *"))
	file := filepath.Join(n.t.TempDir(), "export.tar")
	host.nerdctl(n.t, "export", "-o", file, c.name)
	n.add("export: %s", members(n.t, file, "made/"))
}

// members lists what an archive has below a directory.
func members(t testing.TB, file, below string) []string {
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	var out []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(out)
			return out
		}
		require.NoError(t, err)
		if strings.HasPrefix(h.Name, below) {
			out = append(out, fmt.Sprint(h.Name, " ", h.Size))
		}
	}
}
