package criu_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// sharedTmpfs is a file system of the host's whose mounts show up elsewhere, as
// all of a node with systemd are, with some directories and a file.
func sharedTmpfs(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	err = unix.Mount("", dir, "", unix.MS_SHARED, "")
	for _, name := range names {
		err = errors.Join(err, os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	if err = errors.Join(err, os.WriteFile(filepath.Join(dir, "file"), []byte("file\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func bindMount(from, to string, options ...string) specs.Mount {
	return specs.Mount{Source: from, Destination: to, Type: "bind", Options: append([]string{"rbind"}, options...)}
}

// TestVolumesOfOneFileSystem: what Kubernetes calls HostToContainer, and what a
// plain `ctr run --mount` gives, beside mounts that take no part in it. What the
// host mounts in there shows up in the container, before a crash and after it.
func TestVolumesOfOneFileSystem(t *testing.T) {
	for name, opts := range map[string][]criutest.SpecOpt{"plain": nil, "user namespace": {criutest.InUserNamespace(200_000)}} {
		t.Run(name, func(t *testing.T) {
			host := sharedTmpfs(t, "a/below", "b/below", "c", "d")
			b := start(t, "", shell("mkdir -p /dev/shm/x; "), append(opts, func(s *specs.Spec) {
				s.Mounts = append(s.Mounts,
					bindMount(host+"/a", "/volumes/a", "rslave"), bindMount(host+"/b", "/volumes/b", "rslave"),
					bindMount(host+"/b/below", "/volumes/b-below", "rslave"), bindMount(host+"/c", "/volumes/c", "rprivate"),
					bindMount(host+"/d", "/volumes/d"), bindMount(host+"/file", "/volumes/file", "rslave", "ro"))
			})...)
			b.WaitOutput("ready")
			b.dump()
			before := propagation(t, b.Pid)
			for round := range 2 {
				b.Crash()
				b.restore()
				if after := propagation(t, b.Pid); after != before {
					t.Errorf("propagation after the restore:\n%s\nbefore:\n%s", after, before)
				}
				for _, place := range []string{"a/below", "b/below", "d"} {
					if err := unix.Mount("tmpfs", filepath.Join(host, place), "tmpfs", 0, ""); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(host, place, "new"), nil, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := fmt.Fprintf(b.Input, "cat /volumes/file; cd /volumes; echo %d */new */*/new; cd /\n", round); err != nil {
					t.Fatal(err)
				}
				b.WaitOutput(fmt.Sprintf("file\n%d b-below/new d/new a/below/new b/below/new\n", round))
				if _, err := b.tryDump(t.Context()); !errors.Is(err, criu.ErrUnsupported) || !strings.Contains(err.Error(), "mounted something at /volumes/a/below, ") {
					t.Errorf("a dump with what the host mounted since: %v", err)
				}
				for _, place := range []string{"a/below", "b/below", "d"} {
					if err := unix.Unmount(filepath.Join(host, place), 0); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// TestMovedPropagation: a moved checkpoint gets that of the container it comes to.
func TestMovedPropagation(t *testing.T) {
	host := sharedTmpfs(t, "a", "b")
	with := func(propagation string) *box {
		b := start(t, "", shell(""), func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, bindMount(host+"/a", "/volumes/a", propagation), bindMount(host+"/b", "/volumes/b", propagation))
		})
		b.WaitOutput("ready")
		b.dump()
		return b
	}
	slave, private := with("rslave"), with("rprivate")
	for name, c := range map[string]struct{ from, to *box }{"to slaves": {private, slave}, "to private ones": {slave, private}} {
		t.Run(name, func(t *testing.T) {
			before := propagation(t, c.to.Pid)
			c.to.Crash()
			o := c.to.restoreOptions()
			o.Images, o.Moved = c.from.images, true
			c.to.restoreWith(o)
			if after := propagation(t, c.to.Pid); after != before {
				t.Errorf("propagation after the restore:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

// propagation says of each mount of a process where it has what is mounted below
// it from, and where to it gives it.
func propagation(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		left, _, _ := strings.Cut(line, " - ")
		f := strings.Fields(left)
		out = append(out, fmt.Sprintln(f[4], f[6:]))
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// TestSharedVolume: what a container mounts on its own for the host
// (Bidirectional) would be gone after a restore.
func TestSharedVolume(t *testing.T) {
	host := sharedTmpfs(t, "a")
	c := criutest.Create(t, criutest.Rootfs(t), []string{"/bin/sleep", "9"}, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, bindMount(host+"/a", "/volumes/a", "rshared"))
		s.Linux.RootfsPropagation = "rshared"
	})
	_, err := criu.Pin(c.Pid, c.Spec, t.TempDir()+"/pins")
	if !errors.Is(err, criu.ErrUnsupported) || !strings.Contains(err.Error(), "/volumes/a") {
		t.Errorf("error is %v", err)
	}
}
