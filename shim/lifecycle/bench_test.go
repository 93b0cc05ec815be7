package lifecycle

import (
	"context"
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

// fakeRunc writes PID files, and is busy with what is named in the file "slow"
// beside it until that is gone. Everything else succeeds at once.
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
while grep -q "^$cmd$" "$dir/slow" 2>/dev/null; do sleep 0.01; done
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

func (g *scriptedGuard) StartCrashed(*Container) bool              { return false }
func (g *scriptedGuard) StartInstead(*Container) StartFunc         { return nil }
func (g *scriptedGuard) Prepare(context.Context, *Container) error { return nil }
func (g *scriptedGuard) Created(context.Context, *Container) error { return nil }
func (g *scriptedGuard) Started(context.Context, *Container)       {}
func (g *scriptedGuard) Signalled(_ context.Context, _ *Container, sig syscall.Signal) {
	g.signals <- sig
}
func (g *scriptedGuard) ExecStarted(context.Context, *Container, int) {}
func (g *scriptedGuard) Paused(context.Context, *Container)           {}
func (g *scriptedGuard) Checkpointing(context.Context, *Container) bool {
	return false
}
func (g *scriptedGuard) Resumed(context.Context, *Container) {}
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
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(b.dir, "in-"+cmd)); err == nil {
			break
		}
		require.True(b.t, time.Now().Before(deadline), cmd)
	}
	fn()
	_ = os.Remove(filepath.Join(b.dir, "slow"))
}

func (b *bench) awaitEvents(want ...string) {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); !slices.Equal(b.events.events(), want); time.Sleep(time.Millisecond) {
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

// restore runs Restore with a start that returns pid when told to. It returns
// when start has been called.
func (b *bench) restore(pid int, err error) (proceed chan struct{}, result chan error) {
	proceed, result = make(chan struct{}), make(chan error, 1)
	called := make(chan struct{})
	defer func() { <-called }()
	go func() {
		result <- b.Restore(context.Background(), RestoreRequest{
			Start: func(ctx context.Context, _ *Stdio) (int, error) {
				close(called)
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
