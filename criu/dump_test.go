package criu_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

func TestDumpHookRefuses(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	refuse := errors.New("no space for the snapshot")
	for name, change := range map[string]func(*criu.DumpOptions){
		"before": func(o *criu.DumpOptions) { o.OnPreDump = func() error { return refuse } },
		"frozen": func(o *criu.DumpOptions) { o.OnFrozen = func() error { return refuse } },
		"after":  func(o *criu.DumpOptions) { o.OnPostDump = func() error { return refuse } },
	} {
		pid := b.Pid
		_, err := b.tryDump(t.Context(), change)
		if !errors.Is(err, refuse) || !errors.Is(err, criu.ErrHook) {
			t.Errorf("%s: error is %v", name, err)
		}
		if got := c.Do("INCR", "n"); got == "" || pid != b.Pid {
			t.Errorf("%s: the container does not run on", name)
		}
		mustRun(t, b.Pid)
	}
	b.dump()
}

func TestDumpCanceled(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := b.tryDump(ctx, func(o *criu.DumpOptions) { o.OnPreDump = func() error { cancel(); return nil } })
	if !errors.Is(err, criu.ErrCanceled) || !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if got := c.Do("PING"); got != "PONG" {
		t.Errorf("PING says %q", got)
	}
	if _, err := b.tryDump(ctx); !errors.Is(err, criu.ErrCanceled) {
		t.Errorf("with a context that is over the error is %v", err)
	}
	mustRun(t, b.Pid)
}

func TestDumpFrozenInHook(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	stats := b.dump(func(o *criu.DumpOptions) {
		o.OnPostDump = func() error {
			if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
				return err
			}
			if _, err := c.Write([]byte("PING\r\n")); err != nil {
				return err
			}
			if _, err := c.Read(make([]byte, 10)); !os.IsTimeout(err) {
				return fmt.Errorf("a frozen Redis answered: %v", err)
			}
			return nil
		}
	})
	if stats.PostDump < 50*time.Millisecond || stats.Stall() < stats.PostDump {
		t.Errorf("stats do not show the hook: %+v", stats)
	}
}

// TestDumpBeside: what is done beside CRIU begins when the tasks stand still, and
// has ended when the hook after it is called, or the dump fails.
func TestDumpBeside(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	ended := false
	stats := b.dump(func(o *criu.DumpOptions) {
		o.OnFrozen = func() error {
			// It may be running CRIU's code.
			if s := status(b.Pid); strings.Contains(s, "TracerPid:\t0\n") {
				return fmt.Errorf("the container runs: %s", s)
			}
			// A file that also a patched CRIU makes before the thaw.
			if !exists(filepath.Join(o.Images, "pages-1.img")) {
				return errors.New("CRIU does not go on beside")
			}
			time.Sleep(100 * time.Millisecond)
			ended = true
			return nil
		}
		o.OnPostDump = func() error {
			if !ended {
				return errors.New("too early")
			}
			return nil
		}
	})
	if stats.Stall() < 100*time.Millisecond {
		t.Errorf("stats do not show the hook: %+v", stats)
	}
	ended = false
	_, err := b.tryDump(t.Context(), func(o *criu.DumpOptions) {
		o.OnFrozen = func() error {
			time.Sleep(100 * time.Millisecond)
			ended = true
			return nil
		}
		o.OnPostDump = func() error { return errors.New("refused") }
	})
	if err == nil || !ended {
		t.Errorf("ended: %v, %v", ended, err)
	}
	if got := c.Do("PING"); got != "PONG" {
		t.Errorf("PING says %q", got)
	}
}

// exists waits for a file.
func exists(path string) bool {
	for deadline := time.Now().Add(criutest.Patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

func TestDumpPaused(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	b.redis()
	b.Runc("pause", b.ID)
	if _, err := b.tryDump(t.Context()); !errors.Is(err, criu.ErrPaused) {
		t.Errorf("error is %v", err)
	}
	b.Runc("resume", b.ID)
	b.dump()
}

// TestDumpKilled kills CRIU at random moments of a dump.
func TestDumpKilled(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	b.dump()
	crashed, rng := 0, rand.New(rand.NewPCG(1, 1))
	for i := range rounds {
		after := time.Duration(rng.Int64N(int64(16 * time.Millisecond)))
		err := b.dumpAndKill(after)
		if err != nil && !errors.Is(err, criu.ErrTorn) && !errors.Is(err, criu.ErrDied) {
			t.Fatalf("round %d: %v", i, err)
		}
		reply, rerr := c.Try("INCR", "n")
		if rerr == nil {
			mustRun(t, b.Pid)
			continue
		}
		// CRIU was running its own code in the task, and a crash of the task
		// is what the previous checkpoint is for. A task that lives must not
		// have lost its connections.
		crashed++
		if s := b.whenDead(); !strings.Contains(s, "State:\tZ") {
			t.Fatalf("round %d: killed %v after the start of the dump, and the container lives but says %q, %v\n%s", i, after, reply, rerr, s)
		}
		b.Wait()
		c.Reset()
		b.restore()
		c = b.redis()
	}
	t.Logf("in %d of %d rounds the task crashed", crashed, rounds)
	if crashed*2 > rounds {
		t.Errorf("the task crashed in %d of %d rounds", crashed, rounds)
	}
	b.dump()
}

// whenDead returns the init's status when it is dead: its connections end before
// it does. If it does not die, that is what the status says.
func (b *box) whenDead() string {
	s := status(b.Pid)
	for deadline := time.Now().Add(criutest.Patience); !strings.Contains(s, "State:\tZ") && time.Now().Before(deadline); s = status(b.Pid) {
		time.Sleep(time.Millisecond)
	}
	return s
}

// dumpAndKill takes a checkpoint and kills CRIU some time after the freeze began.
func (b *box) dumpAndKill(after time.Duration) error {
	b.t.Helper()
	var child *os.Process
	frozen, killed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(killed)
		<-frozen
		time.Sleep(after)
		_ = child.Kill() // it may have ended
	}()
	_, err := b.tryDump(b.t.Context(), func(o *criu.DumpOptions) {
		o.OnPreDump = func() error { close(frozen); return nil }
		o.Start = func(cmd *exec.Cmd) (func() (int, error), error) {
			if err := cmd.Start(); err != nil {
				return nil, err
			}
			child = cmd.Process
			return func() (int, error) {
				st, err := cmd.Process.Wait()
				return st.ExitCode(), err
			}, nil
		}
	})
	<-killed
	return err
}

// TestCrashDuringDump kills the container at random moments of a dump. The dump
// fails or is good, and the newest good checkpoint restores.
func TestCrashDuringDump(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	b := start(t, "", criutest.RedisArgs)
	b.redis().Reset()
	b.dump()
	failed, rng := 0, rand.New(rand.NewPCG(1, 2))
	for i := range rounds {
		after := time.Duration(rng.Int64N(int64(14 * time.Millisecond)))
		killed := make(chan struct{})
		pid := b.Pid
		begun := time.Now()
		_, err := b.tryDump(t.Context(), func(o *criu.DumpOptions) {
			o.OnPreDump = func() error {
				go func() {
					defer close(killed)
					time.Sleep(after)
					_ = unix.Kill(pid, unix.SIGKILL)
				}()
				return nil
			}
		})
		<-killed
		if took := time.Since(begun); took > criutest.Patience { // CRIU alone would wait for ever
			t.Errorf("round %d: killed %v after the start, the dump took %v", i, after, took)
		}
		if err != nil {
			failed++
			// CRIU may have found the task gone before we did.
			var ce *criu.Error
			if !errors.As(err, &ce) {
				t.Errorf("round %d: error is %v", i, err)
			}
		} else if err := criu.Validate(b.images); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
		b.Wait()
		b.restore()
		if got := b.redisThenReset("PING"); got != "PONG" {
			t.Errorf("round %d: PING says %q", i, got)
		}
	}
	t.Logf("%d of %d dumps failed", failed, rounds)
}

// redisThenReset sends one command over a connection of its own, of which
// nothing stays.
func (b *box) redisThenReset(args ...string) string {
	b.t.Helper()
	c := b.redis()
	defer c.Reset()
	return c.Do(args...)
}

// mustRun fails the test if a thread of a process is stopped, traced or gone.
func mustRun(t testing.TB, pid int) {
	t.Helper()
	s := status(pid)
	if strings.Contains(s, "State:\tT") || strings.Contains(s, "State:\tt") || !strings.Contains(s, "TracerPid:\t0") {
		t.Errorf("process %d does not run freely:\n%s", pid, s)
	}
}

func status(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// cgroupOf returns the pids cgroup directory of a process.
func cgroupOf(t testing.TB, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if f[1] == "pids" {
			return "/sys/fs/cgroup/pids" + f[2]
		}
		if f[0] == "0" && unix.Access("/sys/fs/cgroup/cgroup.procs", unix.R_OK) == nil {
			return "/sys/fs/cgroup" + f[2]
		}
	}
	t.Fatalf("no pids cgroup in %q", b)
	return ""
}
