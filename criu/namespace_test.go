package criu_test

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// inNamespace calls fn on a thread in a namespace of a process.
func inNamespace(t testing.TB, path string, fn func() error) {
	t.Helper()
	done := make(chan error, 1)
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			go run() // another thread: this one cannot be thrown away
			select {}
		}
		f, err := os.Open(path)
		if err == nil {
			err = unix.Setns(int(f.Fd()), 0)
			f.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}
	go run()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

const semGet = 0o1000 | 0o600 // IPC_CREAT

// TestSystemVIPC makes semaphores in the container's namespace, before and
// after checkpoints.
func TestSystemVIPC(t *testing.T) {
	b := start(t, "", []string{"/bin/sh", "-c", "while :; do sleep 1; done"})
	ns := func() string { return "/proc/" + itoa(b.Pid) + "/ns/ipc" }
	create := func(key uintptr) {
		inNamespace(t, ns(), func() error {
			_, _, e := unix.Syscall(unix.SYS_SEMGET, key, 1, semGet)
			if e != 0 {
				return e
			}
			return nil
		})
	}
	count := func() (n int) {
		inNamespace(t, ns(), func() error {
			list, err := os.ReadFile("/proc/sysvipc/sem")
			n = strings.Count(string(list), "\n") - 1
			return err
		})
		return n
	}
	b.dump() // none
	create(1)
	b.Crash()
	b.restore()
	if n := count(); n != 0 {
		t.Errorf("%d semaphore sets after the restore of a checkpoint without any", n)
	}
	create(1)
	b.dump() // one, in the images
	create(2)
	for range 2 {
		b.Crash()
		b.restore()
		if n := count(); n != 1 {
			t.Errorf("%d semaphore sets after the restore of a checkpoint with one", n)
		}
		if pinned, err := os.Stat(b.pins.Dir + "/ns-ipc"); err != nil {
			t.Error(err)
		} else if own, err := os.Stat(ns()); err != nil || !os.SameFile(pinned, own) {
			t.Errorf("the pinned IPC namespace is not the container's (%v)", err)
		}
		b.dump()
		create(3)
	}
}

func TestHostnameIsRolledBack(t *testing.T) {
	b := start(t, "", []string{"/bin/sh", "-c", "while :; do sleep 1; done"}, func(s *specs.Spec) { s.Hostname = "first" })
	b.dump()
	inNamespace(t, "/proc/"+itoa(b.Pid)+"/ns/uts", func() error { return unix.Sethostname([]byte("second")) })
	b.Crash()
	b.restore()
	if out := b.Runc("exec", b.ID, "/bin/hostname"); out != "first\n" {
		t.Errorf("hostname is %q", out)
	}
}

// TestSharedNamespaces runs a container the way a pod's are: with the network,
// IPC and UTS namespaces of another process.
func TestSharedNamespaces(t *testing.T) {
	pause := start(t, "", []string{"/bin/sh", "-c", "while :; do sleep 1; done"}, func(s *specs.Spec) { s.Hostname = "pod" })
	join := func(typ specs.LinuxNamespaceType, file string) criutest.SpecOpt {
		return criutest.InNamespace(typ, "/proc/"+itoa(pause.Pid)+"/ns/"+file)
	}
	b := start(t, "", criutest.RedisArgs, join(specs.NetworkNamespace, "net"), join(specs.IPCNamespace, "ipc"), join(specs.UTSNamespace, "uts"))
	b.survive(2, func() {})
}

// survive crashes the container's Redis after each of some checkpoints. It has its
// data again, and the same view of the system, and check is called.
func (b *box) survive(rounds int, check func()) {
	b.t.Helper()
	c := b.redis()
	c.Do("SET", "key", "1")
	before := view(b.t, b.Pid)
	for range rounds {
		b.dump()
		c.Reset()
		b.Crash()
		b.restore()
		c = b.redis()
		if got := c.Do("GET", "key"); got != "1" {
			b.t.Errorf("key is %q", got)
		}
		sameView(b.t, before, view(b.t, b.Pid))
		check()
	}
}

func TestPinRefuses(t *testing.T) {
	for name, change := range map[string]criutest.SpecOpt{
		"shared PID namespace": criutest.InNamespace(specs.PIDNamespace, "/proc/1/ns/pid"),
	} {
		s := &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}}}}
		change(s)
		if _, err := criu.Pin(os.Getpid(), s, t.TempDir()+"/pins"); err == nil || !strings.Contains(err.Error(), "not supported") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestOpenPins(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	b.redis().Reset()
	again, err := criu.OpenPins(b.pins.Dir)
	if err != nil {
		t.Fatal(err)
	}
	b.pins = again
	b.dump()
	b.Crash()
	b.restore()
	if got := b.redis().Do("PING"); got != "PONG" {
		t.Errorf("PING says %q", got)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if err := criu.RemovePins(again.Dir); err != nil {
		t.Errorf("a second removal: %v", err)
	}
	if n := b.resources()["mounts"]; n != 1 {
		t.Errorf("%d mounts of the container are left on the host, want the root file system", n)
	}
}
