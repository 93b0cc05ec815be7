package lifecycle

import (
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMonitorOutlivesThreads: a child with Pdeathsig does not end with the thread
// of the goroutine that asked for it.
func TestMonitorOutlivesThreads(t *testing.T) {
	m := NewRuncMonitor()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	thread, err := onOwnThread(func() error {
		_, err := m.StartLocked(cmd)
		return err
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return unix.Tgkill(unix.Getpid(), thread, 0) == unix.ESRCH
	}, time.Minute, time.Millisecond, "the end of the thread")
	require.NoError(t, stdin.Close())
	var ws syscall.WaitStatus
	_, err = syscall.Wait4(cmd.Process.Pid, &ws, 0, nil)
	require.NoError(t, err)
	require.True(t, ws.Exited(), "cat ended by itself, not by a signal: %v", ws)
	require.NoError(t, reaper.Reap())
}

// onOwnThread calls f on a thread that ends afterwards, which the main thread
// never does.
func onOwnThread(f func() error) (thread int, err error) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked
		defer close(done)
		if thread = unix.Gettid(); thread == unix.Getpid() {
			thread, err = onOwnThread(f)
			return
		}
		err = f()
	}()
	<-done
	return thread, err
}
