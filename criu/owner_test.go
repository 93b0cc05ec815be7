package criu_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// asUser makes the container's processes run as an ordinary user, as confined
// as Kubernetes' restricted policy wants it.
func asUser(uid, gid uint32) criutest.SpecOpt {
	return func(s *specs.Spec) {
		s.Process.User.UID, s.Process.User.GID = uid, gid
		s.Process.Capabilities = &specs.LinuxCapabilities{}
		s.Process.NoNewPrivileges = true
		s.Root.Readonly = true
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"ptrace", "mount", "kcmp"}, Action: specs.ActErrno}},
		}
	}
}

// TestOrdinaryUser dumps and restores processes of which the kernel does not
// tell everybody the limits.
func TestOrdinaryUser(t *testing.T) {
	b := start(t, "", criutest.RedisArgs, asUser(1000, 1001), func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 500, Hard: 800}}
	})
	c := b.redis()
	for _, want := range []string{"1", "2", "3"} {
		if got := c.Do("INCR", "n"); got != want {
			t.Errorf("INCR says %s, want %s", got, want)
		}
		b.dump()
		before, allowed := view(t, b.Pid), limits(t, b.Pid)
		c.Do("INCR", "n") // rolled back
		c.Reset()
		b.Crash()
		b.restore()
		sameView(t, before, view(t, b.Pid))
		if got := limits(t, b.Pid); got != allowed {
			t.Errorf("limits after the restore:\n%s\nbefore:\n%s", got, allowed)
		}
		c = b.redis()
	}
}

func limits(t testing.TB, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestOrdinaryUserBesideOthers: another CRIU of the host, which finds its answers
// of the kernel outdated, puts others in their place all the time.
func TestOrdinaryUserBesideOthers(t *testing.T) {
	b := start(t, "", criutest.RedisArgs, asUser(1000, 1001))
	b.redis().Do("SET", "key", "value")
	stop := replaceKerndat(t)
	for range 5 {
		b.dump()
	}
	if n := stop(); n < 5 {
		t.Fatalf("the file was replaced %d times only", n)
	}
	b.Crash()
	b.restore()
	if got := b.redis().Do("GET", "key"); got != "value" {
		t.Errorf("key is %q after the restore", got)
	}
}

// replaceKerndat makes the host's file again and again, until stop, which returns
// how often. It has what it had before, for there are other tests.
func replaceKerndat(t *testing.T) (stop func() int) {
	t.Helper()
	const path = "/run/criu.kdat"
	content, err := os.ReadFile(path)
	existed := err == nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	done, count := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		defer func() { count <- n }()
		for {
			select {
			case <-done:
				return
			default:
			}
			err := os.WriteFile(path+"-test", content, 0o600)
			if err == nil {
				err = os.Rename(path+"-test", path)
			}
			if err != nil {
				t.Errorf("replace %s: %v", path, err)
				return
			}
			n++
		}
	}()
	stop = sync.OnceValue(func() int {
		close(done)
		n := <-count
		if !existed {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
		return n
	})
	t.Cleanup(func() { stop() })
	return stop
}

// TestTwoUsers: with CAP_SYS_RESOURCE it works, without it is told why not.
func TestTwoUsers(t *testing.T) {
	b := start(t, "", []string{"/bin/sh", "-c", "su user -c 'echo >/dev/shm/up; sleep 1000' & while :; do sleep 1000; done"})
	b.WaitFor("/dev/shm/up")
	f, err := criu.Probe(t.Context(), criu.ProbeOptions{Path: b.criu})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.tryDump(t.Context())
	if !f.OneUser {
		if err != nil {
			b.fatal(err)
		}
		return
	}
	if !errors.Is(err, criu.ErrUnsupported) {
		t.Fatalf("error is %v", err)
	}
	for _, part := range []string{"0:0", "1000:1001", "CAP_SYS_RESOURCE"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
	mustRun(t, b.Pid)
}

// TestOtherUserInExec: what an exec runs as does not matter, for it is not
// dumped.
func TestOtherUserInExec(t *testing.T) {
	b := start(t, "", criutest.RedisArgs, asUser(1000, 1001))
	c := b.redis()
	b.ExecDetachedAs("0:0", "/bin/sleep", "1000")
	c.Do("SET", "key", "value")
	b.dump()
	c.Reset()
	b.Crash()
	b.restore()
	if got := b.redis().Do("GET", "key"); got != "value" {
		t.Errorf("key is %q after the restore", got)
	}
}
