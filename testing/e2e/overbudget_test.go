package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
)

// sandbox stands for a pod of Kubernetes: a first container whose shim is that of
// all others.
type sandbox struct {
	*container
	n int // containers that were run
}

func newSandbox(t testing.TB) *sandbox {
	t.Helper()
	s := &sandbox{container: newContainer(t)}
	s.run("busybox", s.annotate(nil, "sandbox", ""), nil, "sleep", "1000")
	return s
}

// annotate adds what the CRI says of a container.
func (s *sandbox) annotate(a annotations, kind, name string) annotations {
	const cri = "io.kubernetes.cri."
	out := annotations{
		cri + "container-type": kind, cri + "sandbox-id": s.id, cri + "sandbox-name": "pod",
		cri + "sandbox-namespace": "default", cri + "sandbox-uid": "uid-of-" + s.id,
	}
	if name != "" {
		out[cri+"container-name"] = name
	}
	maps.Copy(out, a)
	return out
}

// start runs the test application as the container "app" of the pod.
func (s *sandbox) start(a annotations, args ...string) *container {
	s.t.Helper()
	s.n++
	c := &container{t: s.t, e: s.e, pod: s.pod, id: fmt.Sprintf("%s-%d", s.id, s.n)}
	s.e.RemoveContainer(s.t, c.id)
	s.t.Cleanup(c.tellFailure)
	return c.run("busybox", s.annotate(a, "container", "app"), []string{c.mountApp()}, append([]string{"/app"}, args...)...)
}

// end crashes a container beyond its budget, and deletes it as the CRI does.
func (c *container) end(deadly func()) {
	c.t.Helper()
	deadly()
	require.NotZero(c.t, c.awaitExit(patience))
	c.ctr("task", "rm", c.id)
	c.ctr("container", "rm", c.id)
	require.NoDirExists(c.t, c.stateDir())
}

// once is the budget of a container that is not recovered in place.
func once(pairs ...string) annotations {
	return noTriggers(append([]string{"recovery-budget", "0/10m"}, pairs...)...)
}

func (s *sandbox) estates() string { return filepath.Join(s.stateDir(), "estates") }

// TestOverBudgetResumes: the container that takes the place of one which has
// crashed too often has its memory, its files and its connections. After three in
// a row the next begins anew, and says so.
func TestOverBudgetResumes(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	c := s.start(once())
	k := c.dialApp()
	require.Equal(t, "1", k.ask("add"))
	c.exec("true")
	c.awaitNumber(1)
	require.Equal(t, "2", k.ask("add"), "behind the checkpoint")
	log := ""
	for i := range 3 {
		before := c
		c.end(c.kill)
		log += c.log() // all of it is there when the task is gone
		require.DirExists(t, s.estates())
		c = s.start(once())
		st := c.await("the resumption", func(st *status.Status) bool { return st.RecoveryCount == 1 })
		require.Contains(t, st.RestoredFrom, before.id)
		require.NotZero(t, st.Recoveries[0].Checkpoint)
		require.Zero(t, st.Recoveries[0].Differing)
		require.Zero(t, st.Recoveries[0].Reset)
		require.Empty(t, st.NotResumed)
		require.NoDirExists(t, s.estates())
		require.Equal(t, fmt.Sprint(3+i), k.ask("add"), "the same connection")
		require.Equal(t, fmt.Sprintf("memory %d file %d", 3+i, 3+i), k.ask("check"))
		require.Equal(t, fmt.Sprint(3+i), strings.Fields(c.dialApp().ask("check"))[1], "a new one")
	}
	log += c.log()
	for i := range 5 {
		require.Equal(t, 1, strings.Count(log, fmt.Sprintf("added %d\n", i+1)), log)
	}
	c.end(c.kill)
	require.NoDirExists(t, s.estates())
	requireEnded(t, k)
	c = s.start(once())
	require.Equal(t, "memory 0 file 0", c.dialApp().ask("check"))
	st := c.status()
	require.True(t, st.Protected)
	require.Contains(t, st.NotResumed, "3 containers in a row")
}

// TestOverBudgetDeadlyInput: input that kills the application each time it is
// replayed is not replayed for ever, and what is lost with it is not kept quiet.
func TestOverBudgetDeadlyInput(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	c := s.start(once())
	k, other := c.dialApp(), c.dialApp()
	require.Equal(t, "1", k.ask("add"))
	c.exec("true")
	c.awaitNumber(1)
	require.Equal(t, "2", k.ask("add"))
	c.end(func() {
		_, err := k.conn.Write([]byte("die\n"))
		require.NoError(t, err)
	})
	var st *status.Status
	for range 4 {
		c = s.start(once())
		st = c.await("an end or a new beginning", func(st *status.Status) bool {
			return st.Phase == "stopped" || st.NotResumed != "" && st.Phase == "running"
		})
		if st.Phase == "running" {
			break
		}
		c.end(func() {})
	}
	require.Contains(t, st.NotResumed, "resumed")
	require.True(t, st.Protected)
	requireEnded(t, k)
	requireEnded(t, other)
	s.requireAnew(c)
}

// requireAnew: the container began anew, and is resumed like any other.
func (s *sandbox) requireAnew(c *container) {
	n := c.dialApp()
	require.Equal(c.t, "memory 0 file 0", n.ask("check"))
	require.Equal(c.t, "1", n.ask("add"))
	c.crsc("checkpoint", c.id)
	c.end(c.kill)
	s.start(once())
	require.Equal(c.t, "2", n.ask("add"))
}

// TestOverBudgetDamaged: what can't be brought back to life is given up, loudly.
func TestOverBudgetDamaged(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	c := s.start(once())
	k := c.dialApp()
	for range 160 { // beyond a segment, so that the journal's beginning is trimmed
		require.Contains(t, k.ask(strings.Repeat("x", 60000)), "unknown word")
	}
	for range 2 {
		require.Equal(t, "memory 0 file 0", k.ask("check"))
		c.crsc("checkpoint", c.id)
	}
	require.Equal(t, "1", k.ask("add"))
	c.end(c.kill)
	for _, damaged := range []string{"1/layer", "2/layer"} {
		files, err := filepath.Glob(filepath.Join(s.estates(), "*", "checkpoints", damaged, "*"))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, f := range files {
			require.NoError(t, os.RemoveAll(f))
		}
	}
	c = s.start(once())
	st := c.await("a new beginning", func(st *status.Status) bool { return st.NotResumed != "" && st.Phase == "running" })
	require.Contains(t, st.NotResumed, "checkpoint 2: ")
	require.Contains(t, st.NotResumed, "checkpoint 1: ")
	requireEnded(t, k)
	s.requireAnew(c)
}

// TestOverBudgetDeclined: what does not fit, or is not wanted, is not resumed, and
// its clients do not wait for it.
func TestOverBudgetDeclined(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		first, then annotations
		args        []string
		says        string
	}{
		"another template": {once(), once(), []string{"-file", "/other.log"}, "another command"},
		"fresh":            {once("over-budget", "fresh"), once("over-budget", "fresh"), nil, ""},
		"unprotected now":  {once(), annotations{"crsc.io/checkpoint-restore": "false"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t)
			c := s.start(tt.first)
			k := c.dialApp()
			require.Equal(t, "1", k.ask("add"))
			c.end(c.kill)
			c = s.start(tt.then, tt.args...)
			requireEnded(t, k)
			require.NoDirExists(t, s.estates())
			require.Equal(t, "memory 0 file 0", c.dialApp().ask("check"))
			if st, ok := c.readStatus(); ok {
				require.Contains(t, st.NotResumed, tt.says)
				require.Zero(t, st.RecoveryCount)
			}
		})
	}
}

// TestOverBudgetFromTheStart: a container that crashes before its first checkpoint
// is resumed by the whole journal; and an estate that nobody takes goes with the
// pod.
func TestOverBudgetFromTheStart(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	c := s.start(once("journal-encryption", "true"))
	k := c.dialApp()
	require.Equal(t, "1", k.ask("add"))
	c.end(c.kill)
	c = s.start(once("journal-encryption", "true"))
	require.Equal(t, "2", k.ask("add"))
	require.Contains(t, c.await("the resumption", func(st *status.Status) bool { return st.RecoveryCount == 1 }).RestoredFrom, "the start of")
	c.end(c.kill)
	require.DirExists(t, s.estates())
	require.NoError(t, s.e.DeleteContainer(t.Context(), s.id))
	requireEnded(t, k)
	require.Eventually(t, func() bool {
		_, err := os.Stat(s.stateDir())
		return os.IsNotExist(err)
	}, patience, 10*time.Millisecond)
}

// kill ends the init as a crash would.
func (c *container) kill() { c.signalInit(syscall.SIGKILL) }
