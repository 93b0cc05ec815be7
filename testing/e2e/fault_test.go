package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/status"
)

// onSmallDisk runs a Redis whose state lies on a file system of its own.
func onSmallDisk(t *testing.T, size string, a annotations) *container {
	t.Helper()
	c := newContainer(t)
	require.NoError(t, os.MkdirAll(c.stateDir(), 0o700))
	require.NoError(t, unix.Mount("tmpfs", c.stateDir(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size="+size))
	t.Cleanup(func() {
		c.tellFailure() // its files go with the disk
		require.NoError(t, c.e.DeleteContainer(context.Background(), c.id))
		require.NoError(t, unix.Unmount(c.stateDir(), unix.MNT_DETACH))
		require.NoError(t, os.RemoveAll(c.stateDir()))
	})
	c.run("redis", a, nil)
	c.dial().close()
	c.await("protection", func(s *status.Status) bool { return s.Protected })
	return c
}

// fillDisk takes all space that is left, and returns what gives it back.
func (c *container) fillDisk() (free func()) {
	c.t.Helper()
	name := filepath.Join(c.stateDir(), "filler")
	f, err := os.Create(name)
	require.NoError(c.t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	require.ErrorIs(c.t, err, syscall.ENOSPC)
	return func() { require.NoError(c.t, os.Remove(name)) }
}

// bulk sends n MB to Redis.
func (k *client) bulk(n int) {
	k.t.Helper()
	value := strings.Repeat("x", 1<<20)
	for range n {
		require.Equal(k.t, "OK", k.do("SET", "bulk", value))
	}
}

// TestFullDiskEndsTheProtectionForAWhile: clients notice nothing of a full disk;
// the status says what is the matter, and the protection comes back with room.
func TestFullDiskEndsTheProtectionForAWhile(t *testing.T) {
	t.Parallel()
	c := onSmallDisk(t, "80m", noTriggers())
	k := c.dial()
	require.Equal(t, "1", k.do("INCR", "n"))
	free := c.fillDisk()
	k.bulk(12) // more than a segment of the journal
	s := c.await("the end of the protection", func(s *status.Status) bool { return !s.Protected })
	require.Contains(t, s.Reason, "unprotected: journal: ")
	require.Contains(t, s.Reason, "no space left on device")
	require.Equal(t, "2", k.do("INCR", "n"))
	free()
	c.await("protection", func(s *status.Status) bool { return s.Protected })
	require.Equal(t, "3", k.do("INCR", "n"))
	c.crash()
	require.Equal(t, "4", k.do("INCR", "n"))
}

// TestFullDiskHoldsClients: with hold they wait for room instead, and nothing is
// lost in a crash that follows.
func TestFullDiskHoldsClients(t *testing.T) {
	t.Parallel()
	c := onSmallDisk(t, "80m", noTriggers("on-journal-fault", "hold"))
	k, other := c.dial(), c.dial()
	require.Equal(t, "1", k.do("INCR", "n"))
	free := c.fillDisk()
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.bulk(12)
	}()
	s := c.await("clients that wait", func(s *status.Status) bool { return s.JournalFault != "" })
	require.True(t, s.Protected)
	require.Contains(t, s.JournalFault, "no space left on device")
	answer := make(chan string, 1)
	go func() { answer <- other.do("INCR", "n") }()
	select {
	case <-done:
		require.Fail(t, "the bulk went through")
	case a := <-answer:
		require.Fail(t, "answered while the journal can't be written", a)
	case <-time.After(300 * time.Millisecond):
	}
	free()
	<-done
	require.Equal(t, "2", <-answer)
	c.await("clients that go on", func(s *status.Status) bool { return s.JournalFault == "" })
	c.crash()
	require.Equal(t, "3", k.do("INCR", "n"))
	require.Equal(t, "4", other.do("INCR", "n"))
}

// TestStateDisappears: the protection does not wait for a client to find that nobody
// could recover, and begins anew; the container takes orders again.
func TestStateDisappears(t *testing.T) {
	t.Parallel()
	c := redis(t, noTriggers("on-journal-fault", "hold"))
	k := c.dial()
	require.Equal(t, "1", k.do("INCR", "n"))
	c.crsc("checkpoint", c.id)
	entries, err := os.ReadDir(c.stateDir())
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != "pins" { // the container's own mounts are there
			_ = os.RemoveAll(filepath.Join(c.stateDir(), e.Name())) // a tmpfs stays, empty
		}
	}
	c.await("a checkpoint after the fault", func(s *status.Status) bool {
		return s.Protected && s.Checkpoints.Last != nil && s.Checkpoints.Last.Cause == "fault of the journal"
	})
	require.Equal(t, "2", k.do("INCR", "n"))
	c.crash()
	require.Equal(t, "3", k.do("INCR", "n"))
	c.crsc("checkpoint", c.id)
}

// TestJournalDirectoryDisappears: the protection ends when it is noticed, and
// begins anew in a new directory.
func TestJournalDirectoryDisappears(t *testing.T) {
	t.Parallel()
	c := redis(t, noTriggers("on-journal-fault", "hold"))
	k := c.dial()
	c.await("protection", func(s *status.Status) bool { return s.Protected })
	for _, dir := range []string{"journal", "checkpoints"} {
		require.NoError(t, os.RemoveAll(filepath.Join(c.stateDir(), dir)))
	}
	k.bulk(12)
	c.await("a checkpoint after the fault", func(s *status.Status) bool {
		return s.Protected && s.Checkpoints.Last != nil && s.Checkpoints.Last.Cause == "fault of the journal"
	})
	require.Equal(t, "1", k.do("INCR", "n"))
	c.crash()
	require.Equal(t, "2", k.do("INCR", "n"))
}

// TestJournalStaysBelowItsLimit: a checkpoint comes when the journal nears it,
// even if all triggers are off.
func TestJournalStaysBelowItsLimit(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"hold", "unprotect"} {
		t.Run(fault, func(t *testing.T) {
			c := redis(t, noTriggers("on-journal-fault", fault, "journal-max-size", "32Mi"))
			k := c.dial()
			for i := range 12 {
				k.bulk(10)
				require.Equal(t, fmt.Sprint(i+1), k.do("INCR", "n"))
				if fault == "unprotect" {
					time.Sleep(200 * time.Millisecond) // a client that does not race with checkpoints
				}
			}
			s := c.await("a checkpoint", func(s *status.Status) bool { return s.Checkpoints.Last != nil })
			if fault == "hold" || s.Checkpoints.Last.Cause != "fault of the journal" { // on a slow machine it was reached
				require.Equal(t, "journal nearly full", s.Checkpoints.Last.Cause)
			}
			c.await("protection", func(s *status.Status) bool { return s.Protected && s.JournalFault == "" })
			c.crash()
			require.Equal(t, "13", k.do("INCR", "n"))
		})
	}
}
