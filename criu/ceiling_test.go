package criu_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// TestCeiling: what the images have above it is taken away before the processes
// run; what the container may change on its own is left.
func TestCeiling(t *testing.T) {
	model := exec.Command("sleep", "1000")
	if err := model.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = model.Process.Kill(); _ = model.Wait() })
	pid := model.Process.Pid
	own, err := unix.SchedGetAttr(0, 0) // the container's too
	if err != nil {
		t.Fatal(err)
	}
	plain, nicer := fmt.Sprint(own.Nice), fmt.Sprint(own.Nice+5)
	for _, err := range []error{
		unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 300, Max: 512}, nil),
		unix.Setpriority(unix.PRIO_PROCESS, pid, int(own.Nice)+5),
		os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("300"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	ceiling, err := criu.CeilingOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, "", criutest.RedisArgs)
	client := b.redis()
	client.Do("SET", "a", "b")
	b.dump()
	client.Reset()
	for _, c := range []struct {
		limits, priority bool
		files, nice, oom string
	}{{true, true, "512", nicer, "300"}, {false, true, "", nicer, "0"}, {true, false, "512", plain, "300"}} {
		b.Crash()
		o := b.restoreOptions()
		o.Ceiling, ceiling.Limits, ceiling.Priority = ceiling, c.limits, c.priority
		b.restoreWith(o)
		if got := b.redisThenReset("GET", "a"); got != "b" {
			t.Fatal(got)
		}
		var files unix.Rlimit
		if err := unix.Prlimit(b.Pid, unix.RLIMIT_NOFILE, nil, &files); err != nil {
			t.Fatal(err)
		}
		if lowered := fmt.Sprint(files.Max) == "512" && files.Cur <= 512; lowered != c.limits {
			t.Errorf("%+v: descriptors %+v", c, files)
		}
		if got := read(t, fmt.Sprintf("/proc/%d/oom_score_adj", b.Pid)); got != c.oom {
			t.Errorf("%+v: score %s", c, got)
		}
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", b.Pid))
		if err != nil || len(tasks) < 2 {
			t.Fatalf("threads %q %v", tasks, err)
		}
		for _, stat := range tasks {
			text := read(t, stat)
			// The 19th field; the second ends with the last parenthesis.
			if nice := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])[16]; nice != c.nice {
				t.Errorf("%+v: %s: nice %s", c, stat, nice)
			}
		}
	}
	if _, err := criu.CeilingOf(1 << 30); err == nil {
		t.Error("the ceiling of nobody")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
