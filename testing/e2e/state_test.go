package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/load"
)

// TestWritableLayer: files and memory go back to the same moment.
func TestWritableLayer(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]annotations{
		"checkpoints": protected("checkpoint-interval", "300ms"),
		"cold start":  noTriggers(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := runApp(t, a)
			k := c.dialApp()
			n := 0
			for range 4 {
				for range 20 {
					n++
					require.Equal(t, strconv.Itoa(n), k.ask("add"))
				}
				c.crash()
				require.Equal(t, fmt.Sprintf("memory %d file %d", n, n), k.ask("check"))
			}
		})
	}
}

// TestScratchMounts: what is in a tmpfs goes back as well.
func TestScratchMounts(t *testing.T) {
	t.Parallel()
	c := runApp(t, protected("checkpoint-interval", "300ms"), "-file", "/dev/shm/data.log")
	k := c.dialApp()
	for i := range 10 {
		require.Equal(t, strconv.Itoa(i+1), k.ask("add"))
	}
	c.awaitCheckpoint()
	require.Equal(t, "11", k.ask("add"))
	c.crash()
	require.Equal(t, "memory 11 file 11", k.ask("check"))
}

// set stores so many values of half a MiB.
func (k *client) set(n int) {
	k.t.Helper()
	value := strings.Repeat("0123456789abcdef", 32<<10)
	for i := range n {
		require.Equal(k.t, "OK", k.do("SET", "big", strconv.Itoa(i)+value))
	}
}

// TestJournalLimit: a journal that is full costs the protection, with a reason,
// until the next checkpoint; never the container or its clients.
func TestJournalLimit(t *testing.T) {
	criu := newFaultyCRIU(t)
	c := redis(t, noTriggers("journal-max-size", "32Mi"))
	k := c.dial()
	l := c.drive(load.Options{Connections: 5, Rate: 300})
	criu.set(faultFail) // no checkpoint makes room meanwhile
	k.set(80)
	s := c.await("the end of the protection", func(s *status.Status) bool { return !s.Protected })
	require.Contains(t, s.Reason, "journal")
	require.Equal(t, "running", s.Phase)
	k.set(5)
	c.await("a failed checkpoint", func(s *status.Status) bool { return s.Checkpoints.Failed > 0 })
	criu.clear(faultFail)
	// An exec is a reason for a checkpoint, and that brings the protection back.
	require.Equal(t, "PONG\n", c.ctr("task", "exec", "--exec-id", "x", c.id, "redis-cli", "ping"))
	s = c.await("protection", func(s *status.Status) bool { return s.Protected })
	require.Empty(t, s.Reason)
	require.Zero(t, c.crash().Differing)
	require.True(t, strings.HasPrefix(k.do("GET", "big"), "40123456789abcdef"))
	c.finish(l)
}

// TestFullJournalAndCrash: a crash without protection is an exit.
func TestFullJournalAndCrash(t *testing.T) {
	criu := newFaultyCRIU(t)
	c := redis(t, noTriggers("journal-max-size", "32Mi"))
	k := c.dial()
	criu.set(faultFail)
	k.set(80)
	c.await("the end of the protection", func(s *status.Status) bool { return !s.Protected })
	c.signalInit(9)
	require.Equal(t, 137, c.awaitExit(promptly))
	requireEnded(t, k)
}

// TestNoWayBack: when no checkpoint restores and the journal no longer reaches
// back to the start, the exit is reported. A fresh Redis that lacks what was
// acknowledged would be worse.
func TestNoWayBack(t *testing.T) {
	criu := newFaultyCRIU(t)
	c := redis(t, protected("checkpoint-interval", "300ms"))
	k := c.dial()
	require.Equal(t, "OK", k.do("SET", "early", "1"))
	for range 4 { // until segments of the journal have been trimmed
		k.set(30)
		c.awaitCheckpoint()
	}
	c.awaitCheckpoint()
	criu.set(faultFail)
	for _, pid := range c.criuChildren(c.status().ShimPid) {
		kill(t, pid)
	}
	c.signalInit(9)
	require.Equal(t, 137, c.awaitExit(patience))
	requireEnded(t, k)
	s := c.await("the reason", func(s *status.Status) bool { return s.RecoveryFailed == 1 })
	require.Contains(t, s.Reason, "recovery failed")
}

// TestGrowth: 25 crashes in a row leave nothing behind in the shim.
func TestGrowth(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: 25 crashes take half a minute")
	}
	c := redis(t, protected("checkpoint-interval", "300ms"))
	l := c.drive(load.Options{Connections: 10, Rate: 1000})
	shim, err := c.e.Shim(c.id)
	require.NoError(t, err)
	var early, late measured
	for i := range 25 {
		c.awaitCheckpoint()
		require.Zero(t, c.crash().Differing)
		c.awaitCheckpoint()
		if m := c.measure(shim); i < 10 {
			early = early.max(m)
		} else if i == 24 {
			late = m
		}
	}
	c.finish(l)
	t.Logf("early %+v late %+v", early, late)
	require.LessOrEqual(t, late.fds, early.fds+2, "descriptors of the shim")
	require.LessOrEqual(t, late.goroutines, early.goroutines+2, "goroutines of the shim")
	require.LessOrEqual(t, late.mounts, early.mounts, "mounts")
	require.LessOrEqual(t, late.files, early.files+20, "files of checkpoints and journals")
	require.LessOrEqual(t, late.disk, early.disk+early.disk/2, "disk used by them")
	require.Equal(t, 25, c.status().RecoveryCount)
}

// measured is what must not grow.
type measured struct{ fds, goroutines, mounts, files, disk int }

func (m measured) max(o measured) measured {
	return measured{
		max(m.fds, o.fds), max(m.goroutines, o.goroutines), max(m.mounts, o.mounts), max(m.files, o.files), max(m.disk, o.disk),
	}
}

func (c *container) measure(shim int) measured {
	c.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", shim))
	require.NoError(c.t, err)
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", shim))
	require.NoError(c.t, err)
	m := measured{fds: len(fds), goroutines: c.status().Goroutines, mounts: strings.Count(string(mounts), c.id)}
	// Checkpoints come and go meanwhile; what vanishes is not counted.
	_ = filepath.WalkDir(c.stateDir(), func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if st, err := d.Info(); err == nil {
			m.files++
			m.disk += int(st.Size())
		}
		return nil
	})
	return m
}

// TestPrivateNetns: a container that ctr gives an empty network namespace, and
// that gets its network later.
func TestPrivateNetns(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	c.pod.Path = ""
	c.run("redis", protected("checkpoint-interval", "500ms"), nil)
	cli := func(id string, args ...string) string {
		out, err := c.e.Command(t.Context(), "ctr", append([]string{"task", "exec", "--exec-id", id, c.id, "redis-cli", "-e", "-h", "127.0.0.1"}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
		return lastLine(string(out))
	}
	require.Equal(t, "PONG", cli("ping", "ping"))
	require.True(t, c.status().Protected)
	require.Equal(t, "1", cli("incr", "incr", "n"))
	c.awaitCheckpoint()
	before := netnsOf(t, c.initPid())
	c.crash()
	require.Equal(t, before, netnsOf(t, c.initPid()), "the restored processes are in the same namespace")
	require.Equal(t, "2", cli("again", "incr", "n"))
	c.awaitCheckpoint()

	c.giveNetwork()
	k := c.dial()
	l := c.drive(load.Options{Connections: 5, Rate: 500})
	require.Equal(t, "3", k.do("INCR", "n"))
	for i := range 2 {
		time.Sleep(300 * time.Millisecond)
		require.Zero(t, c.crash().Differing)
		require.Equal(t, strconv.Itoa(4+i), k.do("INCR", "n"))
	}
	c.finish(l)
}

// TestDamagedCheckpoint: CRIU reads for ever where memory was cut off; the one
// before is restored then.
func TestDamagedCheckpoint(t *testing.T) {
	t.Parallel()
	c := redis(t, protected("checkpoint-interval", "1h", "checkpoint-memory", "off"))
	k := c.dial()
	for n := range 2 {
		require.Equal(t, strconv.Itoa(n+1), k.do("INCR", "n"))
		c.crsc("checkpoint", c.id)
	}
	last := c.status().Checkpoints.Last.Sequence
	pages, err := filepath.Glob(filepath.Join(c.stateDir(), "checkpoints", strconv.FormatUint(last, 10), "images", "pages-*.img"))
	require.NoError(t, err)
	require.NotEmpty(t, pages)
	for _, f := range pages {
		require.NoError(t, os.Truncate(f, 4096))
	}
	require.Equal(t, "3", k.do("INCR", "n"))
	require.Less(t, c.crash().Checkpoint, last)
	require.Equal(t, "4", k.do("INCR", "n"))
}
