package e2e

import (
	"context"
	"encoding/json"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/control"
	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/faultfs"
)

// diskFaults are those that a disk may have: a segment of the journal can't be
// written, or nothing at all.
var diskFaults = map[string]faultfs.Fault{
	"input/output error":    {Errno: syscall.EIO, Suffix: ".seg"},
	"read-only file system": {Errno: syscall.EROFS},
}

// onFailingDisk runs a Redis whose state lies on a disk that may fail.
func onFailingDisk(t *testing.T, a annotations) (*container, *faultfs.FS) {
	t.Helper()
	c := newContainer(t)
	require.NoError(t, os.MkdirAll(c.stateDir(), 0o700))
	backing := t.TempDir()
	require.NoError(t, os.Chmod(backing, 0o700))
	disk, err := faultfs.Mount(backing, c.stateDir())
	require.NoError(t, err)
	t.Cleanup(func() {
		disk.Heal()
		c.tellFailure()
		require.NoError(t, c.e.DeleteContainer(context.Background(), c.id))
		require.NoError(t, disk.Unmount(c.stateDir()))
		require.NoError(t, os.RemoveAll(c.stateDir()))
	})
	c.run("redis", a, nil)
	c.dial().close()
	c.await("protection", func(s *status.Status) bool { return s.Protected })
	return c, disk
}

// awaitNow waits until the status, as the shim tells it, satisfies a condition:
// the file can't be written on a read-only disk.
func (c *container) awaitNow(what string, cond func(*status.Status) bool) *status.Status {
	c.t.Helper()
	client := &control.Client{Dir: c.stateDir()}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		s, err := client.Status(c.t.Context())
		if err == nil && cond(s) {
			return s
		}
		require.True(c.t, time.Now().Before(deadline), "waited for %s: %v %+v", what, err, s)
	}
}

// listed is the reason that crsc ps gives for the container.
func (c *container) listed() string {
	c.t.Helper()
	out, err := c.e.Command(c.t.Context(), "crsc", "ps", "--json").CombinedOutput()
	require.NoError(c.t, err, string(out))
	var list []*status.Status
	require.NoError(c.t, json.Unmarshal(out, &list))
	for _, s := range list {
		if s.ID == c.id {
			return s.Reason
		}
	}
	require.Fail(c.t, "crsc ps does not know the container", string(out))
	return ""
}

// TestFailingDiskEndsTheProtectionForAWhile: clients notice nothing, the shim says
// what is the matter, and the protection comes back when the fault has gone.
func TestFailingDiskEndsTheProtectionForAWhile(t *testing.T) {
	t.Parallel()
	for reason, fault := range diskFaults {
		t.Run(fault.Errno.Error(), func(t *testing.T) {
			t.Parallel()
			c, disk := onFailingDisk(t, noTriggers())
			k := c.dial()
			require.Equal(t, "1", k.do("INCR", "n"))
			disk.Fail(fault)
			require.Equal(t, "2", k.do("INCR", "n"))
			s := c.awaitNow("the end of the protection", func(s *status.Status) bool { return !s.Protected })
			require.Contains(t, s.Reason, "unprotected: journal: ")
			require.Contains(t, s.Reason, reason)
			require.Contains(t, c.listed(), reason)
			require.Equal(t, "3", k.do("INCR", "n"))
			disk.Heal()
			c.awaitNow("protection", func(s *status.Status) bool { return s.Protected })
			require.Equal(t, "4", k.do("INCR", "n"))
			c.crash()
			require.Equal(t, "5", k.do("INCR", "n"))
		})
	}
}

// TestFailingDiskHoldsClients: with hold they wait until the fault has gone, and
// nothing is lost in a crash that follows.
func TestFailingDiskHoldsClients(t *testing.T) {
	t.Parallel()
	for reason, fault := range diskFaults {
		t.Run(fault.Errno.Error(), func(t *testing.T) {
			t.Parallel()
			c, disk := onFailingDisk(t, noTriggers("on-journal-fault", "hold"))
			k := c.dial()
			require.Equal(t, "1", k.do("INCR", "n"))
			disk.Fail(fault)
			answer := make(chan string, 1)
			go func() { answer <- k.do("INCR", "n") }()
			s := c.awaitNow("clients that wait", func(s *status.Status) bool { return s.JournalFault != "" })
			require.True(t, s.Protected)
			require.Contains(t, s.JournalFault, reason)
			select {
			case a := <-answer:
				require.Fail(t, "answered while the journal can't be written", a)
			case <-time.After(300 * time.Millisecond):
			}
			disk.Heal()
			require.Equal(t, "2", <-answer)
			c.awaitNow("clients that go on", func(s *status.Status) bool { return s.JournalFault == "" })
			c.crash()
			require.Equal(t, "3", k.do("INCR", "n"))
		})
	}
}

// TestCrashOnAFailingDisk: what is not protected is not recovered, however good
// the last checkpoint is.
func TestCrashOnAFailingDisk(t *testing.T) {
	t.Parallel()
	for _, fault := range diskFaults {
		t.Run(fault.Errno.Error(), func(t *testing.T) {
			t.Parallel()
			c, disk := onFailingDisk(t, noTriggers())
			k := c.dial()
			require.Equal(t, "1", k.do("INCR", "n"))
			disk.Fail(fault)
			require.Equal(t, "2", k.do("INCR", "n"))
			c.awaitNow("the end of the protection", func(s *status.Status) bool { return !s.Protected })
			c.signalInit(syscall.SIGKILL)
			require.Equal(t, 128+int(syscall.SIGKILL), c.awaitExit(patience))
			_, err := k.try("GET", "n")
			require.Error(t, err, "a state from before the fault must not answer")
		})
	}
}
