package criu_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

func TestRestoreBringsBackState(t *testing.T) {
	for _, tc := range []struct {
		name  string
		netns bool
	}{{"netns by path", true}, {"private netns", false}} {
		t.Run(tc.name, func(t *testing.T) {
			netns := ""
			if tc.netns {
				netns = criutest.NetNS(t)
			}
			b := start(t, netns, criutest.RedisArgs)
			c := b.redis()
			c.Do("SET", "key", "before")
			b.dump()
			before := view(t, b.Pid)
			c.Do("SET", "key", "after")
			c.Reset()
			b.Crash()
			b.restore()
			sameView(t, before, view(t, b.Pid))
			if got := b.redis().Do("GET", "key"); got != "before" {
				t.Errorf("key is %q after the restore, want the checkpoint's value", got)
			}
			v6 := criutest.DialRedis(t, b.pins.NetNS(), "[::1]:6379")
			if got := v6.Do("GET", "key"); got != "before" {
				t.Errorf("over IPv6 key is %q", got)
			}
		})
	}
}

func TestRuncWorksAfterRestore(t *testing.T) {
	b := start(t, "", []string{"/bin/sh", "-c", "while :; do read line; echo got $line; done"})
	if _, err := b.Input.WriteString("one\n"); err != nil {
		t.Fatal(err)
	}
	b.WaitOutput("got one")
	for range 2 {
		b.dump()
		b.Crash()
		b.restore()
	}
	if _, err := b.Input.WriteString("two\n"); err != nil {
		t.Fatal(err)
	}
	b.WaitOutput("got two")
	if s := b.Runc("state", b.ID); !strings.Contains(s, `"status": "running"`) {
		t.Errorf("runc state: %s", s)
	}
	// Two processes of one container must agree on all their namespaces.
	here := b.Runc("exec", b.ID, "/bin/sh", "-c", "cd /proc/self/ns && ls -l . && cd /proc/1/ns && ls -l .")
	for _, ns := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		ids := namespaceIDs(here, ns)
		if len(ids) != 2 || ids[0] != ids[1] {
			t.Errorf("runc exec: %s namespaces of exec and init are %v\n%s", ns, ids, here)
		}
	}
	if out := b.Runc("exec", b.ID, "/bin/sh", "-c", "echo hi >/dev/null && echo $(stat -c %a:%t:%T /dev/null) && cat /proc/self/cgroup"); !strings.Contains(out, "666:1:3") || !strings.Contains(out, b.ID) {
		t.Errorf("runc exec: %s", out)
	}
	b.Runc("pause", b.ID)
	if s := b.Runc("state", b.ID); !strings.Contains(s, `"status": "paused"`) {
		t.Errorf("runc state: %s", s)
	}
	b.Runc("resume", b.ID)
	if s := b.Runc("events", "--stats", b.ID); !strings.Contains(s, `"pids":{"current":`) {
		t.Errorf("runc events: %s", s)
	}
	if s := b.Runc("ps", "--format", "json", b.ID); strings.TrimSpace(s) == "null" || !strings.Contains(s, "[") {
		t.Errorf("runc ps: %s", s)
	}
	b.Runc("update", "--pids-limit", "50", b.ID)
	b.Runc("kill", b.ID, "KILL")
	b.Wait()
	b.Runc("delete", b.ID)
	b.Pid = 0
}

// namespaceIDs returns the identities of a sort of namespace in a listing.
func namespaceIDs(listing, sort string) []string {
	var ids []string
	for line := range strings.Lines(listing) {
		if _, id, ok := strings.Cut(line, " "+sort+" -> "); ok {
			ids = append(ids, strings.TrimSpace(id))
		}
	}
	return ids
}

func TestRestoreKeepsSpecialSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := start(t, "", []string{"/bin/sh", "-c", "echo data >/dev/shm/file; sleep 1000 & while :; do sleep 1; done"}, func(s *specs.Spec) {
		s.Hostname = "crsc-test"
		adj := 321
		s.Process.OOMScoreAdj = &adj
		s.Process.User.AdditionalGids = []uint32{7}
		s.Process.User.UID, s.Process.User.GID = 1000, 1001
		s.Root.Readonly = true
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "size=1m", "mode=1777"}},
			specs.Mount{Destination: "/etc", Type: "bind", Source: t.TempDir(), Options: []string{"rbind", "ro"}},
			specs.Mount{Destination: "/data", Type: "bind", Source: t.TempDir(), Options: []string{"rbind", "rprivate"}},
			specs.Mount{Destination: "/run/one file", Type: "bind", Source: file, Options: []string{"bind", "ro"}},
			specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		)
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdirat"}, Action: specs.ActErrno}},
		}
	})
	b.WaitFor("/dev/shm/file")
	b.dump()
	before := view(t, b.Pid)
	b.Crash()
	b.restore()
	sameView(t, before, view(t, b.Pid))
	if out := b.Runc("exec", b.ID, "/bin/sh", "-c", "hostname; cat /dev/shm/file"); out != "crsc-test\ndata\n" {
		t.Errorf("exec after the restore says %q", out)
	}
	kinds := map[criu.Kind][]string{}
	for _, m := range b.pins.Mounts {
		kinds[m.Kind] = append(kinds[m.Kind], m.Container)
	}
	if got, want := fmt.Sprint(kinds[criu.Scratch]), "[/dev /dev/shm /run /tmp]"; got != want {
		t.Errorf("scratch mounts are %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(kinds[criu.Volume]), "[/etc /data /run/one file]"; got != want {
		t.Errorf("volumes are %s, want %s", got, want)
	}
	for _, m := range b.pins.Scratch() {
		if _, err := os.Stat(m.Host); err != nil {
			t.Error(err)
		}
	}
}
