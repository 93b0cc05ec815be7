package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// written are the host's directories that stay visible, with changes in memory.
func written(o Options) []string {
	return append([]string{"/etc", "/opt", "/var/lib", "/var/log"}, o.Written...)
}

const (
	memory  = "/run/isolate"
	cgroups = "/sys/fs/cgroup"
)

// mountAll gives the mount namespace its own /proc, /run and cgroups, and lets
// changes elsewhere go to memory.
func mountAll(o Options) error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	// Shared among themselves: containerd's mount propagation needs it.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	const locked = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := mount("proc", "/proc", "proc", locked, ""); err != nil {
		return err
	}
	// Containers' root filesystems lie here: devices and programs are wanted.
	if err := mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, dir := range written(o) {
		if err := overlay(dir); err != nil {
			return err
		}
	}
	if o.Unified {
		return mount("cgroup2", cgroups, "cgroup2", 0, "")
	}
	return mountCgroups()
}

func overlay(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	base := filepath.Join(memory, strings.ReplaceAll(dir[1:], "/", "-"))
	upper, work := filepath.Join(base, "upper"), filepath.Join(base, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return mount("overlay", dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work))
}

// mountCgroups mounts the hierarchies anew, where the host has them: now their
// root is that of the cgroup namespace.
func mountCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	if len(all) != 1 || all[0].dir != cgroups {
		if err := mount("tmpfs", cgroups, "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
	}
	for _, h := range all {
		if err := os.MkdirAll(h.dir, 0o755); err != nil {
			return err
		}
		if err := mount(h.kind, h.dir, h.kind, 0, h.options); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, target, err)
	}
	return nil
}
