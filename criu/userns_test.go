package criu_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// TestUserNamespace restores connections in the network namespace that belongs
// to the user namespace, round after round.
func TestUserNamespace(t *testing.T) {
	b := start(t, "", criutest.RedisArgs, criutest.InUserNamespace(200_000))
	b.survive(3, func() {
		if out := b.Runc("exec", b.ID, "/bin/stat", "-c", "%u", "/proc/1"); out != "0\n" {
			t.Errorf("the owner of the init is %q", out)
		}
	})
}

// TestUserNamespaceUsers has processes of two users. Without a user namespace that
// takes CAP_SYS_RESOURCE.
func TestUserNamespaceUsers(t *testing.T) {
	script := `su user -c "touch /dev/shm/up; while :; do sleep 1; done" & while :; do sleep 1; done`
	b := start(t, "", []string{"/bin/sh", "-c", script}, criutest.InUserNamespace(200_000))
	b.WaitFor("/dev/shm/up")
	for range 2 {
		b.dump()
		b.Crash()
		b.restore()
		out := b.Runc("exec", b.ID, "/bin/sh", "-c", "for d in /proc/[0-9]*; do stat -c %u:%g $d 2>/dev/null; done; true") // sleeps come and go
		if !strings.Contains(out, "0:0\n") || !strings.Contains(out, "1000:1001\n") || strings.Contains(out, "65534") {
			t.Errorf("the processes run as\n%s", out)
		}
	}
}

// TestUserNamespaceNeedsItsNetwork: in a network namespace of the host's, the
// container's root has no rights to restore a connection with.
func TestUserNamespaceNeedsItsNetwork(t *testing.T) {
	noSysfs := func(s *specs.Spec) {
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "sysfs" })
	}
	c := criutest.Create(t, criutest.Rootfs(t), []string{"/bin/sleep", "9"}, criutest.InUserNamespace(200_000),
		criutest.InNamespace(specs.NetworkNamespace, criutest.NetNS(t)), noSysfs)
	dir := t.TempDir() + "/pins"
	_, err := criu.Pin(c.Pid, c.Spec, dir)
	if !errors.Is(err, criu.ErrUnsupported) || !strings.Contains(err.Error(), "network namespace") {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the refused pins are still there: %v", err)
	}
}

// TestUserNamespaceOfOthers: a checkpoint is not restored for other users.
func TestUserNamespaceOfOthers(t *testing.T) {
	loop := []string{"/bin/sh", "-c", "while :; do sleep 1; done"}
	a := start(t, "", loop, criutest.InUserNamespace(200_000))
	a.dump()
	for name, first := range map[string]uint32{"others": 300_000, "none": 0} {
		t.Run(name, func(t *testing.T) {
			var opts []criutest.SpecOpt
			if first > 0 {
				opts = append(opts, criutest.InUserNamespace(first))
			}
			b := start(t, "", loop, opts...)
			b.images = a.images
			b.Crash()
			if _, _, err := criu.Restore(t.Context(), b.restoreOptions()); !errors.Is(err, criu.ErrUnsupported) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// TestUserNamespaceMoved: the processes of another container become those of this
// one's users, as far as it has as many.
func TestUserNamespaceMoved(t *testing.T) {
	script := `su user -c "touch /dev/shm/up; while :; do sleep 1; done" & while :; do sleep 1; done`
	a := start(t, "", []string{"/bin/sh", "-c", script}, criutest.InUserNamespace(200_000))
	a.WaitFor("/dev/shm/up")
	a.dump()
	b := start(t, "", []string{"/bin/sh", "-c", script}, criutest.InUserNamespace(300_000))
	b.images = a.images
	b.Crash()
	o := b.restoreOptions()
	o.Moved = true
	b.restoreWith(o)
	users := map[uint32]bool{}
	for _, pid := range cgroupProcs(t, cgroupOf(t, b.Pid)) {
		st, err := os.Stat("/proc/" + pid)
		if errors.Is(err, os.ErrNotExist) {
			continue // sleeps come and go
		}
		if err != nil {
			t.Fatal(err)
		}
		users[st.Sys().(*syscall.Stat_t).Uid] = true
	}
	if len(users) != 2 || !users[300_000] || !users[301_000] {
		t.Errorf("the processes belong to %v", users)
	}

	few := func(s *specs.Spec) {
		s.Linux.UIDMappings[0].Size, s.Linux.GIDMappings[0].Size = 2000, 2000
	}
	c := start(t, "", []string{"/bin/sh", "-c", "while :; do sleep 1; done"}, criutest.InUserNamespace(300_000), few)
	c.images = a.images
	c.Crash()
	o = c.restoreOptions()
	o.Moved = true
	if _, _, err := criu.Restore(t.Context(), o); !errors.Is(err, criu.ErrUnsupported) {
		t.Errorf("error is %v", err)
	}
}
