package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
)

// megabyte is a value of Redis that takes room.
var megabyte = strings.Repeat("0123456789abcdef", 64<<10)

// shortOfMemory runs a Redis with 96 MB, fills less than half of it and waits until
// that is a reason for a checkpoint.
func shortOfMemory(t *testing.T, pairs ...string) (*container, *client) {
	t.Helper()
	c := newContainer(t)
	a := noTriggers(append([]string{"checkpoint-on-pressure", "memory=45", "checkpoint-unreplayable", "off", "recover-oom", "true"}, pairs...)...)
	c.run("redis", a, []string{fmt.Sprintf("--memory-limit=%d", 96<<20)}, "redis-server", "--save", "", "--protected-mode", "no")
	k := c.dial()
	for i := range 42 {
		require.Equal(t, "OK", k.do("SET", fmt.Sprint("early", i), megabyte))
	}
	s := c.await("a checkpoint", func(s *status.Status) bool { return s.Checkpoints.Count > 0 })
	require.Regexp(t, `^memory at \d+% of its limit$`, s.Checkpoints.Last.Cause)
	return c, k
}

// TestOutOfMemory: the kernel kills the application after the checkpoint that the
// pressure was a reason for. What needed the memory was no part of it, so it fits
// again after the crash, with all that was acknowledged since.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	c, k := shortOfMemory(t)
	c.ctr("task", "exec", "--detach", "--exec-id", "hog", c.id, "sh", "-c", "head -c 30000000 /dev/zero | tail -c 30000000 | sleep 1000")
	c.await("what the exec needs", func(s *status.Status) bool {
		return s.Pressure != nil && s.Pressure.MemoryPercent != nil && *s.Pressure.MemoryPercent > 70
	})
	const late = 32
	for i := range late {
		require.Equal(t, "OK", k.do("SET", fmt.Sprint("late", i), megabyte))
	}
	s := c.status()
	require.Equal(t, 1, s.RecoveryCount, "the limit was not reached, or again: %+v", s.Recoveries)
	r := s.Recoveries[0]
	require.Equal(t, "out of memory", r.Cause)
	require.NotZero(t, r.Checkpoint)
	require.Zero(t, r.Reset)
	require.Equal(t, "74", k.do("DBSIZE"))
	for i := range late {
		require.Equal(t, megabyte, k.do("GET", fmt.Sprint("late", i)))
	}
}

// TestOutOfMemoryAgain: what clients ask for does not fit, so it does not when it is
// replayed. The budget ends it, and the reason says both.
func TestOutOfMemoryAgain(t *testing.T) {
	t.Parallel()
	c, k := shortOfMemory(t, "recovery-budget", "2/1h")
	for i, deadline := 0, time.Now().Add(3*patience); !c.task().stopped; i++ {
		require.True(t, time.Now().Before(deadline), "it goes on and on")
		if _, err := k.try("SET", fmt.Sprint("late", i), megabyte); err != nil {
			k = c.redial(k)
		}
	}
	require.Equal(t, 137, c.awaitExit(patience))
	s := c.await("the end", func(s *status.Status) bool { return s.Phase == "stopped" })
	require.False(t, s.Protected)
	require.Equal(t, 2, s.RecoveryCount, "%+v", s.Recoveries)
	require.Contains(t, s.Reason, "recovery failed (out of memory): recovery budget exhausted: 3 crashes")
}

// redial connects again, unless nobody listens any more.
func (c *container) redial(k *client) *client {
	k.close()
	err := env.InNetns(c.e.Client().Path, func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(c.pod.IP4, redisPort).String(), time.Second)
		if err == nil {
			k = &client{c.t, conn, bufio.NewReader(conn)}
			c.t.Cleanup(k.close)
		}
		return err
	})
	if err != nil {
		time.Sleep(20 * time.Millisecond)
	}
	return k
}
