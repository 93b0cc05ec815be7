package criu_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
)

// shell reads commands and runs them.
func shell(before string) []string {
	return []string{"/bin/sh", "-c", before + "echo ready; while read line; do eval \"$line\"; done"}
}

// TestRestoreFollowsNoLinks: what a container has left on a volume does not lead
// CRIU, which is the host's root, to other places than the checkpoint says.
func TestRestoreFollowsNoLinks(t *testing.T) {
	volume := t.TempDir()
	in := func(name string) string { return filepath.Join(volume, name) }
	if err := errors.Join(os.Mkdir(in("there"), 0o755), os.Mkdir(in("elsewhere"), 0o755), os.WriteFile(in("elsewhere/file"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	b := start(t, "", shell("cd /volume/there && exec 7>>file 8>>gone && rm gone && "), func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/volume", Type: "bind", Source: volume, Options: []string{"rbind", "rw"}})
	})
	b.WaitOutput("ready")
	b.dump()
	before := view(t, b.Pid)
	b.Crash()
	if err := os.Rename(in("there"), in("kept")); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"elsewhere", "/volume/elsewhere", "/proc/self/root/volume/elsewhere", volume + "/elsewhere"} {
		if err := os.Symlink(link, in("there")); err != nil {
			t.Fatal(err)
		}
		pid, _, err := criu.Restore(t.Context(), b.restoreOptions())
		if err == nil {
			b.Pid = pid
			cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
			b.Crash()
			t.Errorf("a link to %s was followed, to %s", link, cwd)
		} else if !strings.Contains(err.Error(), "symbolic links") {
			t.Errorf("link to %s: %v", link, err)
		}
		if list, err := os.ReadDir(in("elsewhere")); err != nil || len(list) != 1 {
			t.Errorf("link to %s: made in there: %v %v", link, list, err)
		}
		if err := os.Remove(in("there")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(in("kept"), in("there")); err != nil {
		t.Fatal(err)
	}
	b.restore()
	sameView(t, before, view(t, b.Pid))
	if _, err := b.Input.WriteString("ln -s ../elsewhere link && echo 7 >&7 && echo >&8 && ls link; cat file\n"); err != nil {
		t.Fatal(err)
	}
	b.WaitOutput("file\n7\n")
	if left, err := filepath.Glob(filepath.Join(b.images, "linkless*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

// TestRestoreHasItsOwnKeyring: keys of the calling process are not the
// container's, as they are not with runc.
func TestRestoreHasItsOwnKeyring(t *testing.T) {
	runtime.LockOSThread() // keyrings are a thread's
	defer runtime.UnlockOSThread()
	name := fmt.Sprintf("crsctest-%d", os.Getpid())
	ours, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	users, err2 := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_SESSION_KEYRING, false)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	ring := unix.KEY_SPEC_SESSION_KEYRING
	if ours == users { // we have none, and with the first key this thread would get one
		ring = unix.KEY_SPEC_USER_SESSION_KEYRING
	}
	key, err := unix.AddKey("user", name, []byte("secret"), ring)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := unix.KeyctlInt(unix.KEYCTL_INVALIDATE, key, 0, 0, 0); err != nil {
			t.Error(err)
		}
	}()
	const possessor = 0x3f000000 // nobody else, whatever the user
	if err := unix.KeyctlSetperm(key, possessor); err != nil {
		t.Fatal(err)
	}
	if keys, err := os.ReadFile("/proc/keys"); err != nil || !strings.Contains(string(keys), name) {
		t.Fatalf("%s is not among our keys: %v\n%s", name, err, keys)
	}
	b := start(t, "", shell(""), func(s *specs.Spec) { s.Linux.MaskedPaths = nil })
	b.WaitOutput("ready")
	b.dump()
	b.Crash()
	b.restore()
	if _, err := b.Input.WriteString("keys=clean; while read a; do case $a in *" + name + "*) keys=stolen;; esac; done </proc/keys; echo keys $keys\n"); err != nil {
		t.Fatal(err)
	}
	b.WaitOutput("keys clean")
}
