package lifecycle

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInitExitsBeforeStartReturns(t *testing.T) {
	b := newBench(t, false, "start")
	go b.during("start", func() { b.exit(initPid, 3) })
	b.start()
	e, err := b.Wait(context.Background(), "")
	require.NoError(t, err)
	require.Equal(t, 3, e.Status)
	b.awaitEvents("create", "start", "exit c 3")
	st, err := b.Delete(context.Background(), "")
	require.NoError(t, err)
	require.Equal(t, 3, st.Exit.Status)
	b.awaitEvents("create", "start", "exit c 3", "delete")
	_, err = b.Delete(context.Background(), "")
	require.ErrorIs(t, err, ErrNoContainer)
	_, err = b.s.Container("c")
	require.ErrorIs(t, err, ErrNoContainer)
}

func TestExecExitsFirst(t *testing.T) {
	b := newBench(t, false, "exec")
	b.start()
	require.NoError(t, b.Exec(context.Background(), "x", []byte(`{}`), stdioNone))
	require.ErrorIs(t, b.Exec(context.Background(), "x", []byte(`{}`), stdioNone), ErrProcessExists)
	// Both die while the exec is being started, init first.
	go b.during("exec", func() {
		b.exit(initPid, 137)
		b.exit(execPid, 5)
	})
	pid, err := b.Start(context.Background(), "x")
	require.NoError(t, err)
	require.Equal(t, execPid, pid)
	b.awaitEvents("create", "start", "exec-added", "exec-started", "exit x 5", "exit c 137")
	require.ErrorIs(t, b.Exec(context.Background(), "y", []byte(`{}`), stdioNone), ErrTransition)
}

func TestExecAfterInitGone(t *testing.T) {
	b := newBench(t, false)
	b.start()
	require.NoError(t, b.Exec(context.Background(), "x", []byte(`{}`), stdioNone))
	b.exit(initPid, 0)
	b.awaitEvents("create", "start", "exec-added", "exit c 0")
	_, err := b.Start(context.Background(), "x")
	require.ErrorIs(t, err, ErrInitGone)
	_, err = b.Start(context.Background(), "nobody")
	require.ErrorIs(t, err, ErrNoProcess)
}

func TestIllegalOperations(t *testing.T) {
	ctx := context.Background()
	b := newBench(t, false)
	require.ErrorIs(t, b.Pause(ctx), ErrTransition)
	require.ErrorIs(t, b.Checkpoint(ctx, CheckpointRequest{}), ErrTransition)
	b.start()
	_, err := b.Start(ctx, "")
	require.ErrorIs(t, err, ErrTransition)
	require.ErrorIs(t, b.Resume(ctx), ErrTransition)
	_, err = b.Delete(ctx, "")
	require.ErrorIs(t, err, ErrTransition)
	require.NoError(t, b.Pause(ctx))
	require.ErrorIs(t, b.Pause(ctx), ErrTransition)
	require.ErrorIs(t, b.Exec(ctx, "x", []byte(`{}`), stdioNone), ErrTransition)
	b.exit(initPid, 137)
	b.awaitEvents("create", "start", "paused", "exit c 137")
	require.ErrorIs(t, b.Pause(ctx), ErrTransition)
	require.ErrorIs(t, b.Restore(ctx, RestoreRequest{}), ErrNotRecovering)
}

// TestStateDuringOperation: reading never waits for an operation in progress.
func TestStateDuringOperation(t *testing.T) {
	b := newBench(t, false, "pause")
	b.start()
	done := make(chan error)
	go func() { done <- b.Pause(context.Background()) }()
	b.during("pause", func() {
		st, err := b.State("")
		require.NoError(t, err)
		require.True(t, st.Pausing, "the operation waits for this to end")
	})
	require.NoError(t, <-done)
	st, err := b.State("")
	require.NoError(t, err)
	require.Equal(t, PhasePaused, st.Phase)
	require.False(t, st.Pausing)
}

func TestRestore(t *testing.T) {
	b := newBench(t, true)
	b.start()
	b.exit(initPid, 139)
	require.Equal(t, 139, (<-b.guard.exits).Status)
	require.Equal(t, PhaseRecovering, b.Phase())
	proceed, result := b.restore(0, errors.New("not yet"))
	close(proceed)
	require.ErrorContains(t, <-result, "not yet")
	require.Equal(t, PhaseRecovering, b.Phase(), "it may be tried again")

	proceed, result = b.restore(nextPid, nil)
	// The new init dies before the restore returns.
	b.exit(nextPid, 134)
	close(proceed)
	require.NoError(t, <-result)
	require.Equal(t, Exit{Pid: nextPid, Status: 134}, withoutTime(<-b.guard.exits))
	require.Equal(t, nextPid, b.Pid())
	b.ReportExit(Exit{Pid: nextPid, Status: 134, At: time.Now()})
	b.awaitEvents("create", "start", "exit c 134")
	b.ReportExit(Exit{Status: 1})
	b.awaitEvents("create", "start", "exit c 134")
}

func withoutTime(e Exit) Exit {
	e.At = time.Time{}
	return e
}

func TestKillDuringRestore(t *testing.T) {
	b := newBench(t, true)
	b.start()
	b.exit(initPid, 139)
	<-b.guard.exits
	_, result := b.restore(nextPid, nil)
	require.NoError(t, b.Kill(context.Background(), "", syscall.SIGKILL, false))
	require.Equal(t, syscall.SIGKILL, <-b.guard.signals)
	b.awaitEvents("create", "start", "exit c 137")
	require.ErrorIs(t, <-result, ErrKilled)
	b.ReportExit(Exit{Status: 139})
	_, err := b.Delete(context.Background(), "")
	require.NoError(t, err)
	b.awaitEvents("create", "start", "exit c 137", "delete")
}

func TestSignalDuringRestore(t *testing.T) {
	b := newBench(t, true)
	b.start()
	b.exit(initPid, 139)
	<-b.guard.exits
	for range 3 {
		require.NoError(t, b.Kill(context.Background(), "", syscall.SIGTERM, false))
	}
	require.NoError(t, b.Kill(context.Background(), "", 0, false), "it is alive, as far as one can see")
	require.Equal(t, PhaseRecovering, b.Phase())
	proceed, result := b.restore(nextPid, nil)
	close(proceed)
	require.NoError(t, <-result)
	calls, err := os.ReadFile(filepath.Join(b.dir, "calls"))
	require.NoError(t, err)
	require.Equal(t, "create\nstart\nkill\n", string(calls), "delivered once")
	// Given up instead, the exit is what the signal would have made it.
	b.exit(nextPid, 139)
	<-b.guard.exits
	require.NoError(t, b.Kill(context.Background(), "", syscall.SIGTERM, false))
	b.ReportExit(Exit{Pid: nextPid, Status: 139, At: time.Now()})
	b.awaitEvents("create", "start", "exit c 143")
}

func TestNoRecoveryAfterKill(t *testing.T) {
	b := newBench(t, true)
	b.start()
	require.NoError(t, b.Kill(context.Background(), "", syscall.SIGKILL, false))
	b.exit(initPid, 137)
	b.awaitEvents("create", "start", "exit c 137")
	require.Empty(t, b.guard.exits)
}

func TestOperationsWaitForRecovery(t *testing.T) {
	b := newBench(t, true)
	b.start()
	b.exit(initPid, 139)
	<-b.guard.exits
	require.NoError(t, b.Exec(context.Background(), "x", []byte(`{}`), stdioNone))
	short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	_, err := b.Start(short, "x")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, b.Pause(short), context.DeadlineExceeded)
	_, err = b.Delete(context.Background(), "")
	require.ErrorIs(t, err, ErrTransition)
	started := make(chan error)
	go func() {
		_, err := b.Start(context.Background(), "x")
		started <- err
	}()
	proceed, result := b.restore(nextPid, nil)
	close(proceed)
	require.NoError(t, <-result)
	require.NoError(t, <-started)
	b.awaitEvents("create", "start", "exec-added", "exec-started")
}

// TestConcurrently lets everything happen at once, for the race detector; the
// container must end up stopped, with one exit event as the last.
func TestConcurrently(t *testing.T) {
	b := newBench(t, true)
	b.start()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for _, fn := range []func(){
		func() { _, _ = b.State("") },
		func() { _, _ = b.Stats() },
		func() { _ = b.Kill(context.Background(), "", syscall.SIGHUP, false); <-b.guard.signals },
		func() { b.MarkStdio().Release() },
		func() { _ = b.Pid() },
	} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					fn()
				}
			}
		})
	}
	pid := initPid
	for i := range 20 {
		b.exit(pid, 139)
		<-b.guard.exits
		pid = nextPid + i
		proceed, result := b.restore(pid, nil)
		close(proceed)
		require.NoError(t, <-result)
	}
	close(stop)
	wg.Wait()
	require.NoError(t, b.Kill(context.Background(), "", syscall.SIGKILL, false))
	b.exit(pid, 137)
	b.awaitEvents("create", "start", "exit c 137")
}
