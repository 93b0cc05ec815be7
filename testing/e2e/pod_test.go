package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/load"
)

// beside names a container in the network of another, as in a pod.
func (c *container) beside() *container {
	c.t.Helper()
	b := &container{t: c.t, e: c.e, pod: c.pod, id: env.UniqueName(c.t)}
	c.e.RemoveContainer(c.t, b.id)
	c.t.Cleanup(b.tellFailure)
	return b
}

func redisAt(port int) []string {
	return []string{"redis-server", "--save", "", "--protected-mode", "no", "--bind", "*", "-::*", "--port", fmt.Sprint(port)}
}

// TestPodOfSeveral: two protected containers and one that is not share a network
// namespace. Whichever crashes, the others' clients see nothing of it, and the
// protected ones' own see a delay.
func TestPodOfSeveral(t *testing.T) {
	t.Parallel()
	const portA, portB, portC = 6379, 6380, 6381
	a := newContainer(t)
	b, c := a.beside(), a.beside()
	a.run("redis", protected("checkpoint-interval", "300ms"), nil, redisAt(portA)...)
	b.run("redis", protected("checkpoint-interval", "300ms"), nil, redisAt(portB)...)
	c.run("redis", nil, nil, redisAt(portC)...)
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(a.pod.IP4, port) }
	kept := map[*container]*client{a: a.connect(at(portA)), b: b.connect(at(portB)), c: c.connect(at(portC))}
	loads := []*load.Load{
		a.drive(load.Options{Connections: 10, Rate: 500, Target: at(portA)}),
		b.drive(load.Options{Connections: 10, Rate: 500, Target: at(portB)}),
	}
	sibling := c.drive(load.Options{Connections: 10, Rate: 500, Target: at(portC)})
	require.Regexp(t, fmt.Sprintf(" addr=%s ", kept[c].conn.LocalAddr()), kept[c].do("CLIENT", "INFO"),
		"the unprotected container's clients come to it directly")
	a.awaitCheckpoint()
	b.awaitCheckpoint()
	for i := range 2 {
		require.Zero(t, a.crash().Differing)
		time.Sleep(200 * time.Millisecond)
		require.Zero(t, b.crash().Differing)
		for who, k := range kept {
			require.Equal(t, fmt.Sprint(i+1), k.do("INCR", "kept"), who.id)
		}
	}
	// Both at once.
	before := [2]int{a.status().RecoveryCount, b.status().RecoveryCount}
	var wg sync.WaitGroup
	pids := [2]int{a.initPid(), b.initPid()}
	for _, pid := range pids {
		wg.Go(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	}
	wg.Wait()
	a.awaitRecovery(before[0] + 1)
	b.awaitRecovery(before[1] + 1)
	for who, k := range kept {
		require.Equal(t, "3", k.do("INCR", "kept"), who.id)
	}
	a.finish(loads[0])
	a.finish(sibling)

	// One leaves the pod; the other is as well protected as before.
	a.ctr("task", "kill", "-s", "SIGKILL", a.id)
	a.awaitExit(patience)
	a.ctr("task", "rm", a.id)
	b.crash()
	require.Equal(t, "4", kept[b].do("INCR", "kept"))
	require.Equal(t, "4", kept[c].do("INCR", "kept"))
	b.finish(loads[1])
}

// TestLoopbackOfAPod: what the pod's other containers send over lo survives
// crashes, if it is intercepted.
func TestLoopbackOfAPod(t *testing.T) {
	t.Parallel()
	a := newContainer(t)
	b := a.beside()
	a.run("redis", protected("checkpoint-interval", "300ms", "intercept-loopback", "true"), nil)
	a.dial().close()
	const counted = 2000
	b.run("redis", nil, nil, "redis-cli", "-h", "127.0.0.1", "-r", fmt.Sprint(counted), "-i", "0.001", "INCR", "beside")
	drive := func(addr netip.Addr) *load.Load {
		return a.drive(load.Options{Connections: 10, Rate: 300, Target: netip.AddrPortFrom(addr, redisPort), Netns: a.pod.Path})
	}
	loads := []*load.Load{drive(netip.IPv6Loopback()), drive(a.pod.IP4)}
	a.awaitCheckpoint()
	for range 3 {
		time.Sleep(200 * time.Millisecond) // for something to replay
		require.Zero(t, a.crash().Differing)
	}
	for _, l := range loads {
		a.finish(l)
	}
	require.Zero(t, b.awaitExit(2*patience))
	var want strings.Builder
	for i := range counted {
		fmt.Fprintln(&want, i+1)
	}
	require.Equal(t, want.String(), b.log())
}
