package criu_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/inventory"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

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
			masked := b.Spec.Linux.MaskedPaths
			c, err := criu.ReadContents(b.images, masked)
			if err != nil {
				t.Fatal(err)
			}
			if want := []criu.Rights{rightsFromKernel(t, b.Pid)}; !reflect.DeepEqual(c.Rights, want) {
				t.Errorf("rights %+v, the kernel says %+v", c.Rights, want)
			}
			if c.Rights[0].NoNewPrivs != strict || (c.Rights[0].Bounding == 0) != strict {
				t.Errorf("rights %+v", c.Rights)
			}
			if want := []specs.LinuxNamespaceType{"ipc", "network", "uts"}; !slices.Equal(c.Namespaces, want) || len(c.Needs) != 0 {
				t.Errorf("namespaces %q, needs %q", c.Namespaces, c.Needs)
			}
			mounts, err := b.pins.MountTable(b.Pid, masked)
			if err != nil || !slices.Equal(mounts, c.Mounts) {
				t.Errorf("mounts\n%q, the kernel says\n%q %v", c.Mounts, mounts, err)
			}
			for _, want := range []string{"/ (root)", "/dev/shm (from outside, nosuid, nodev, noexec) on /dev", "/proc/sys (proc /sys, ro, nosuid, nodev, noexec) on /proc", "/proc/keys (masked, nosuid) on /proc"} {
				if !slices.Contains(mounts, want) {
					t.Errorf("mounts %q, without %q", mounts, want)
				}
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
			foreignContents(t, b.images)
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
	for _, path := range append(mounts, filepath.Join(images, "core-1.img"), filepath.Join(images, "files.img"), filepath.Join(images, "ids-1.img"), filepath.Join(images, "crsc.json")) {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, good[:len(good)-3], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := criu.ReadContents(images, nil); err == nil {
			t.Errorf("a torn %s goes unnoticed", filepath.Base(path))
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// foreignContents: images with what Dump never writes are not restored.
func foreignContents(t *testing.T, images string) {
	t.Helper()
	for _, name := range []string{"netdev-1.img", "iptables-2.img", "tmpfs-dev-3.tar.gz.img", "apparmor.img", "userns-1.img", "core-x.img", "criu.conf"} {
		path := filepath.Join(images, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := criu.ReadContents(images, nil); !errors.Is(err, criu.ErrCorrupt) || !strings.Contains(err.Error(), name) {
			t.Errorf("with %s: %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	// The tasks would be made in CRIU's own namespaces: the host's.
	for _, sort := range []string{"pid", "mnt", "net", "user"} {
		restore := changeIDs(t, images, sort)
		if _, err := criu.ReadContents(images, nil); !errors.Is(err, criu.ErrCorrupt) || !strings.Contains(err.Error(), "init of a container") {
			t.Errorf("another %s namespace: %v", sort, err)
		}
		restore()
	}
	if _, err := criu.ReadContents(images, nil); err != nil {
		t.Error(err)
	}
}

// changeIDs makes the namespace of the init the host's if it is its own, and the
// other way round.
func changeIDs(t *testing.T, images, sort string) (restore func()) {
	t.Helper()
	path := filepath.Join(images, "ids-1.img")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	inv, err := os.ReadFile(filepath.Join(images, "inventory.img"))
	if err != nil {
		t.Fatal(err)
	}
	var ids criu_core.TaskKobjIdsEntry
	var host inventory.InventoryEntry
	if err := errors.Join(proto.Unmarshal(good[12:], &ids), proto.Unmarshal(inv[8:], &host)); err != nil {
		t.Fatal(err)
	}
	root := host.GetRootIds()
	switch sort {
	case "pid":
		ids.PidNsId = root.PidNsId
	case "mnt":
		ids.MntNsId = root.MntNsId
	case "net":
		ids.NetNsId = proto.Uint32(77)
	case "user":
		ids.UserNsId = proto.Uint32(77)
	}
	b, err := proto.Marshal(&ids)
	if err != nil {
		t.Fatal(err)
	}
	bad := append(binary.NativeEndian.AppendUint32(slices.Clone(good[:8]), uint32(len(b))), b...)
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestConfine: filters that the images lack are added, for every thread.
func TestConfine(t *testing.T) {
	b := start(t, "", criutest.RedisArgs, func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"reboot"}, Action: specs.ActErrno},
		}}
	})
	redis := b.redis()
	redis.Do("SET", "a", "b")
	own, err := criu.SeccompFilters(b.Pid)
	if err != nil || len(own) != 1 || len(own[0])%8 != 0 || len(own[0]) == 0 {
		t.Fatalf("filters %x: %v", own, err)
	}
	redis.Do("SET", "a", "c") // it runs on
	b.dump()
	path := filepath.Join(b.images, "seccomp.img")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := criu.Confine(b.images, own[0], true); err != nil {
		t.Fatal(err)
	}
	if same, err := os.ReadFile(path); err != nil || !bytes.Equal(good, same) {
		t.Errorf("filters that are there were added: %v", err)
	}
	// BPF_RET | BPF_K with SECCOMP_RET_ALLOW, twice: another program than any.
	allow := binary.NativeEndian.AppendUint32([]byte{6, 0, 0, 0}, 0x7fff0000)
	another := slices.Concat(allow, allow)
	for range 2 {
		if err := criu.Confine(b.images, another, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := criu.Confine(b.images, own[0], false); err != nil {
		t.Fatal(err)
	}
	requireFilters(t, b, redis, own[0], another)
	if err := criu.Confine(b.images, append(another, allow...), true); err != nil { // for the first that was added
		t.Fatal(err)
	}
	requireFilters(t, b, b.redis(), own[0], append(another, allow...))
}

// requireFilters restores the images and compares the filters of each thread.
func requireFilters(t *testing.T, b *box, redis *criutest.Redis, want ...[]byte) {
	t.Helper()
	redis.Reset()
	b.Crash()
	b.restore()
	b.redis().Do("GET", "a")
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", b.Pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads %q %v", tasks, err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		if err != nil {
			t.Fatal(err)
		}
		have, err := criu.SeccompFilters(tid)
		less := func(a, b []byte) int { return len(a) - len(b) }
		slices.SortFunc(have, less)
		slices.SortFunc(want, less)
		if err != nil || !slices.EqualFunc(have, want, bytes.Equal) {
			t.Errorf("thread %d has the filters %x, want %x: %v", tid, have, want, err)
		}
	}
}

// TestConfineRefuses: a task without filters is not restored.
func TestConfineRefuses(t *testing.T) {
	b := start(t, "", criutest.RedisArgs)
	b.redis().Do("SET", "a", "b")
	if none, err := criu.SeccompFilters(b.Pid); err != nil || len(none) != 0 {
		t.Errorf("filters %x: %v", none, err)
	}
	b.dump()
	if err := criu.Confine(b.images, make([]byte, 8), true); !errors.Is(err, criu.ErrUnfiltered) {
		t.Error(err)
	}
	if _, err := criu.SeccompFilters(1 << 30); !errors.Is(err, unix.ESRCH) {
		t.Error(err)
	}
}

// rightsFromKernel reads them from /proc/PID/status.
func rightsFromKernel(t *testing.T, pid int) (r criu.Rights) {
	t.Helper()
	status := kernelStatus(t, pid)
	scan := func(key, format string, to ...any) {
		t.Helper()
		if _, err := fmt.Sscanf(status[key], format, to...); err != nil {
			t.Fatalf("%s: %q: %v", key, status[key], err)
		}
	}
	scan("Uid", "%d %d %d %d", &r.UIDs[0], &r.UIDs[1], &r.UIDs[2], &r.UIDs[3])
	scan("Gid", "%d %d %d %d", &r.GIDs[0], &r.GIDs[1], &r.GIDs[2], &r.GIDs[3])
	for f := range strings.FieldsSeq(status["Groups"]) {
		g, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		r.Groups = append(r.Groups, uint32(g))
	}
	for key, set := range map[string]*uint64{"CapInh": &r.Inheritable, "CapPrm": &r.Permitted, "CapEff": &r.Effective, "CapBnd": &r.Bounding, "CapAmb": &r.Ambient} {
		scan(key, "%x", set)
	}
	r.NoNewPrivs = status["NoNewPrivs"] == "1"
	return r
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
