package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/stdio"
	runc "github.com/containerd/go-runc"
	"github.com/stretchr/testify/require"
)

var stdioNone = stdio.Stdio{}

// The tests here drive the state machine with a script in runc's place, and
// with exits that the test invents. PIDs are those of no process.
const (
	initPid = 4_194_000 // below the largest pid_max, so that it is a valid one
	execPid = 4_194_001
	nextPid = 4_194_002
)

// fakeRunc writes PID files, and takes its time for what is named in the file
// "slow" beside it. Everything else succeeds at once.
const fakeRunc = `#!/bin/sh
dir=%q
pid=%d
while [ $# -gt 0 ]; do
  case $1 in
    create|start|exec|kill|delete|pause|resume|restore) [ -n "$cmd" ] || cmd=$1;;
    --pid-file) pidfile=$2; shift;;
  esac
  shift
done
[ "$cmd" = exec ] && pid=%d
[ -n "$pidfile" ] && printf %%d $pid >"$pidfile"
echo "$cmd" >>"$dir/calls"
: >"$dir/in-$cmd"
grep -q "^$cmd$" "$dir/slow" 2>/dev/null && sleep 0.3
exit 0
`

// recorder takes the events.
type recorder struct {
	mu   sync.Mutex
	list []string
}

func (r *recorder) Publish(_ context.Context, topic string, e events.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := filepath.Base(topic)
	if x, ok := e.(*apievents.TaskExit); ok {
		s = fmt.Sprintf("%s %s %d", s, x.ID, x.ExitStatus)
	}
	r.list = append(r.list, s)
	return nil
}

func (r *recorder) Close() error { return nil }

func (r *recorder) events() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

// bench is a supervisor with one created container.
type bench struct {
	*Container
	t      *testing.T
	dir    string
	events *recorder
	exits  chan runc.Exit
	guard  *scriptedGuard
}

// scriptedGuard hands the exit to the test.
type scriptedGuard struct {
	exits   chan Exit
	signals chan syscall.Signal
}

func (g *scriptedGuard) Prepare(context.Context, *Container) error { return nil }
func (g *scriptedGuard) Created(context.Context, *Container) error { return nil }
func (g *scriptedGuard) Started(context.Context, *Container)       {}
func (g *scriptedGuard) Signalled(_ context.Context, _ *Container, sig syscall.Signal) {
	g.signals <- sig
}
func (g *scriptedGuard) ExecStarted(context.Context, *Container, int) {}
func (g *scriptedGuard) Paused(context.Context, *Container)           {}
func (g *scriptedGuard) Resumed(context.Context, *Container)          {}
func (g *scriptedGuard) Exited(_ context.Context, _ *Container, e Exit) bool {
	g.exits <- e
	return true
}
func (g *scriptedGuard) Deleted(context.Context, *Container) error { return nil }
func (g *scriptedGuard) Close() error                              { return nil }

func newBench(t *testing.T, guarded bool, slow ...string) *bench {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "runc")
	require.NoError(t, os.WriteFile(script, fmt.Appendf(nil, fakeRunc, dir, initPid, execPid), 0o755))
	for _, s := range slow {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "slow"), []byte(s+"\n"), 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"),
		[]byte(`{"linux":{"namespaces":[{"type":"pid"}]}}`), 0o600))
	b := &bench{t: t, dir: dir, events: &recorder{}, exits: make(chan runc.Exit, 32)}
	cfg := Config{Namespace: "test", Publisher: b.events}
	if guarded {
		b.guard = &scriptedGuard{exits: make(chan Exit, 8), signals: make(chan syscall.Signal, 8)}
		cfg.Guards = func(context.Context, *Container) (Guard, error) { return b.guard, nil }
	}
	s, err := NewSupervisor(namespaces.WithNamespace(context.Background(), "test"), cfg)
	require.NoError(t, err)
	// The exits are the test's, in the same loop.
	s.work.Go(func() {
		for e := range b.exits {
			exit := Exit{Pid: e.Pid, Status: e.Status, At: e.Timestamp}
			if o, ok := s.tracker.exited(exit); ok {
				o.container.exited(o.process, exit)
			}
		}
	})
	t.Cleanup(func() {
		close(b.exits)
		require.NoError(t, s.Close())
	})
	b.Container, err = s.Create(context.Background(), CreateRequest{
		ID: "c", Bundle: dir, Options: anyOf(t, &options.Options{BinaryName: script, Root: dir}),
	})
	require.NoError(t, err)
	return b
}

func (b *bench) exit(pid, status int) {
	b.exits <- runc.Exit{Pid: pid, Status: status, Timestamp: time.Now()}
}

// during runs fn while the fake runc is busy with the command.
func (b *bench) during(cmd string, fn func()) {
	b.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(b.dir, "in-"+cmd)); err == nil {
			break
		}
		require.True(b.t, time.Now().Before(deadline), cmd)
	}
	fn()
}

func (b *bench) awaitEvents(want ...string) {
	b.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !slices.Equal(b.events.events(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			require.Equal(b.t, want, b.events.events())
		}
	}
}

func (b *bench) start() {
	b.t.Helper()
	pid, err := b.Start(context.Background(), "")
	require.NoError(b.t, err)
	require.Equal(b.t, initPid, pid)
}

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
	require.ErrorIs(t, err, ErrTransition)
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
		begin := time.Now()
		st, err := b.State("")
		require.NoError(t, err)
		require.True(t, st.Pausing)
		require.Less(t, time.Since(begin), 100*time.Millisecond)
	})
	require.NoError(t, <-done)
	st, err := b.State("")
	require.NoError(t, err)
	require.Equal(t, PhasePaused, st.Phase)
	require.False(t, st.Pausing)
}

// restore runs Restore with a start that returns pid when told to.
func (b *bench) restore(pid int, err error) (proceed chan struct{}, result chan error) {
	proceed, result = make(chan struct{}), make(chan error, 1)
	go func() {
		result <- b.Restore(context.Background(), RestoreRequest{
			Start: func(ctx context.Context, _ *Pipes) (int, error) {
				select {
				case <-proceed:
				case <-ctx.Done():
					if err == nil {
						err = ctx.Err()
					}
				}
				return pid, err
			},
		})
	}()
	return proceed, result
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
