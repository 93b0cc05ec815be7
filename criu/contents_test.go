package criu_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// TestContents compares what the images would bring with what the kernel says of
// the processes they were made of.
func TestContents(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
			b := start(t, "", criutest.RedisArgs, func(s *specs.Spec) {
				s.Process.NoNewPrivileges = strict
				if strict {
					s.Process.Capabilities = &specs.LinuxCapabilities{}
					s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
						{Names: []string{"reboot"}, Action: specs.ActErrno},
					}}
				}
			})
			b.redis().Do("SET", "a", "b")
			b.dump()
			c, err := criu.ReadContents(b.images)
			if err != nil {
				t.Fatal(err)
			}
			status := kernelStatus(t, b.Pid)
			var caps uint64
			for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd"} {
				var v uint64
				if _, err := fmt.Sscanf(status[set], "%x", &v); err != nil {
					t.Fatal(err)
				}
				caps |= v
			}
			if c.Capabilities != caps || (caps == 0) != strict {
				t.Errorf("capabilities %#x, the kernel says %#x", c.Capabilities, caps)
			}
			if c.NoNewPrivs != (status["NoNewPrivs"] == "1") || c.NoNewPrivs != strict {
				t.Errorf("no_new_privs %v, the kernel says %s", c.NoNewPrivs, status["NoNewPrivs"])
			}
			if c.Seccomp != (status["Seccomp"] == "2") || c.Seccomp != strict {
				t.Errorf("seccomp %v, the kernel says %s", c.Seccomp, status["Seccomp"])
			}
			if !c.Root {
				t.Error("the container runs as root")
			}
			mounts, err := criu.MountPoints(b.Pid)
			if err != nil || !slices.Equal(mounts, c.Mounts) || !slices.Contains(mounts, "/dev/shm") {
				t.Errorf("mounts %q, the kernel says %q %v", c.Mounts, mounts, err)
			}
			if want := netip.MustParseAddrPort("0.0.0.0:6379"); !slices.Contains(c.Bound, want) {
				t.Errorf("bound %v, without %v", c.Bound, want)
			}
			for _, a := range c.Bound {
				if a.Port() != 6379 {
					t.Errorf("%v is bound, or it is a connection", a)
				}
			}
			have, err := b.pins.Addresses()
			if err != nil || !slices.Contains(have, netip.MustParseAddr("127.0.0.1")) {
				t.Errorf("addresses %v %v", have, err)
			}
			tornContents(t, b.images)
		})
	}
}

// tornContents: what can't be read is no reason to allow anything.
func tornContents(t *testing.T, images string) {
	t.Helper()
	mounts, err := filepath.Glob(filepath.Join(images, "mountpoints-*.img"))
	if err != nil || len(mounts) == 0 {
		t.Fatalf("no mounts in the images: %v", err)
	}
	for _, path := range append(mounts, filepath.Join(images, "core-1.img"), filepath.Join(images, "files.img")) {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, good[:len(good)-3], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := criu.ReadContents(images); err == nil {
			t.Errorf("a torn %s goes unnoticed", filepath.Base(path))
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// kernelStatus reads /proc/PID/status.
func kernelStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		out[key] = strings.TrimSpace(value)
	}
	return out
}
