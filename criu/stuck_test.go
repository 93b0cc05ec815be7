package criu_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// halted starts CRIU, and makes stop make it stand still.
func halted() (start criu.StartFunc, stop func() error) {
	var child *os.Process
	start = func(cmd *exec.Cmd) (func() (int, error), error) {
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		child = cmd.Process
		return func() (int, error) {
			st, err := child.Wait()
			return st.ExitCode(), err
		}, nil
	}
	return start, func() error { return child.Signal(unix.SIGSTOP) }
}

// TestDumpStuck: a CRIU that stands still, before and after the tasks are frozen,
// does not keep the container for longer than it may.
func TestDumpStuck(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	c := b.redis()
	for name, at := range map[string]func(*criu.DumpOptions, func() error){
		"before": func(o *criu.DumpOptions, stop func() error) { o.OnPreDump = stop },
		"after":  func(o *criu.DumpOptions, stop func() error) { o.OnPostDump = stop },
	} {
		for _, urgent := range []bool{false, true} {
			start, stop := halted()
			_, err := b.tryDump(t.Context(), func(o *criu.DumpOptions) {
				o.Start, o.Patience, o.Urgent = start, 500*time.Millisecond, urgent
				at(o, stop)
			})
			if !errors.Is(err, criu.ErrStuck) || !errors.Is(err, criu.ErrTorn) {
				t.Errorf("%s: error is %v", name, err)
			}
			if got := c.Do("PING"); got != "PONG" {
				t.Errorf("%s: PING says %q", name, got)
			}
			mustRun(t, b.Pid)
		}
	}
	b.dump(func(o *criu.DumpOptions) { o.Patience = time.Minute })
}

// TestArmStuck: nor does one that does not get ready for a restore.
func TestArmStuck(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	b.redis()
	b.dump()
	o := b.restoreOptions()
	run, stop := halted()
	o.Start = func(cmd *exec.Cmd) (func() (int, error), error) {
		wait, err := run(cmd)
		if err == nil {
			err = stop()
		}
		return wait, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := criu.Arm(ctx, o); !errors.Is(err, criu.ErrCanceled) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	mustRun(t, b.Pid)
}

// TestProbeStuck: nor one that is asked what it can do.
func TestProbeStuck(t *testing.T) {
	still := filepath.Join(t.TempDir(), "still")
	real := criutest.Tool(t, "criu")
	for _, script := range []string{
		"sleep 1000",
		"[ $1 != check ] || sleep 1000\nexec " + real + " \"$@\"",
	} {
		if err := os.WriteFile(still, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := criu.Probe(t.Context(), criu.ProbeOptions{Path: still, Patience: 2 * time.Second}); !errors.Is(err, criu.ErrStuck) {
			t.Errorf("%q: error is %v", script, err)
		}
	}
}
