package recovery

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy"
)

// listed makes a list of processes in place of a cgroup's.
func listed(t *testing.T, init int, pids ...int) *processes {
	t.Helper()
	p := &processes{
		procs: filepath.Join(t.TempDir(), "cgroup.procs"), known: map[int]int{}, dead: map[int]death{}, buf: make([]byte, 4096),
	}
	p.list(t, pids...)
	p.follow(init)
	p.look()
	return p
}

func (p *processes) list(t *testing.T, pids ...int) {
	t.Helper()
	text := ""
	for _, pid := range pids {
		text += strconv.Itoa(pid) + "\n"
	}
	require.NoError(t, os.WriteFile(p.procs, []byte(text), 0o600))
}

// startChild starts a process that sleeps; it is reaped by reap only.
func startChild(t *testing.T) (pid int, reap func()) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, cmd.Start())
	waited := false
	reap = func() {
		if !waited {
			waited = true
			_ = cmd.Wait()
		}
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); reap() })
	return cmd.Process.Pid, reap
}

func awaitState(t *testing.T, p *processes, pid int, state byte) {
	t.Helper()
	require.Eventually(t, func() bool { return p.read(pid).state == state }, time.Minute, time.Millisecond)
}

// TestWrapperDeath: a child of this process, which is awake as a shell is that
// is about to follow its child.
func TestWrapperDeath(t *testing.T) {
	self := os.Getpid()
	child, reap := startChild(t)
	init, _ := startChild(t)
	p := listed(t, init, self, child, init)
	require.Equal(t, netproxy.Alive, p.dying())
	require.NoError(t, syscall.Kill(child, syscall.SIGKILL))
	awaitState(t, p, child, 'Z')
	p.list(t, self, init) // a dead process leaves its cgroup before it is reaped
	require.Equal(t, netproxy.ChildDying, p.dying())
	require.Equal(t, netproxy.ChildDying, p.dying(), "until its parent has reaped it, and beyond")
	reap()
	// This process runs: it is calling dying.
	if p.read(self).state == 'R' {
		require.Equal(t, netproxy.ChildDying, p.dying())
	}
	require.Eventually(t, func() bool { return p.dying() == netproxy.Alive }, time.Minute, 10*time.Millisecond,
		"a parent that lives on is believed at last")
	require.Empty(t, p.dead)
}

// TestBusyParent: a parent that has reaped and goes on working lives on, although
// it never sleeps.
func TestBusyParent(t *testing.T) {
	parent := exec.Command("sh", "-c", "sleep 1000 & echo $!; wait $!; while :; do :; done")
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	t.Cleanup(func() { _ = parent.Process.Kill(); _ = parent.Wait() })
	var child int
	_, err = fmt.Fscan(out, &child)
	require.NoError(t, err)
	p := listed(t, parent.Process.Pid, parent.Process.Pid, child)
	awaitState(t, p, parent.Process.Pid, 'S')
	require.NoError(t, syscall.Kill(child, syscall.SIGKILL))
	p.list(t, parent.Process.Pid)
	require.Equal(t, netproxy.ChildDying, p.dying())
	p.mu.Lock()
	d := p.dead[child]
	d.seen = d.seen.Add(time.Hour) // so that time alone does not end it
	p.dead[child] = d
	p.mu.Unlock()
	require.Eventually(t, func() bool { return p.dying() == netproxy.Alive }, time.Minute, time.Millisecond)
}

// TestIdle: a process that computes is at work, one that waits is not.
func TestIdle(t *testing.T) {
	sleeper, _ := startChild(t)
	p := listed(t, sleeper, sleeper)
	require.Eventually(t, p.idle, time.Minute, time.Millisecond)
	busy := exec.Command("sh", "-c", "while :; do :; done")
	require.NoError(t, busy.Start())
	t.Cleanup(func() { _ = busy.Process.Kill(); _ = busy.Wait() })
	p.list(t, sleeper, busy.Process.Pid)
	require.Never(t, p.idle, 50*time.Millisecond, time.Millisecond)
}

func TestInitDeath(t *testing.T) {
	init, reap := startChild(t)
	p := listed(t, init, init)
	require.Equal(t, netproxy.Alive, p.dying())
	require.NoError(t, syscall.Kill(init, syscall.SIGKILL))
	awaitState(t, p, init, 'Z')
	require.Equal(t, netproxy.InitDying, p.dying())
	reap()
	require.Equal(t, netproxy.InitDying, p.dying())
	next, _ := startChild(t)
	p.list(t, next)
	p.follow(next)
	require.Equal(t, netproxy.Alive, p.dying(), "the restored one")
}
