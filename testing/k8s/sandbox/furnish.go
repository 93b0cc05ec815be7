package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// replaced are the directories in which the sandbox has files of its own: all
// that containerd, CNI plugins, a kubelet and our installer write to.
var replaced = []string{
	"/etc/cni", "/etc/containerd", "/opt", "/run",
	"/var/lib/cni", "/var/lib/containerd", "/var/lib/crsc", "/var/lib/kubelet",
	"/var/log/containers", "/var/log/pods",
}

// sysctls are those that a kubelet sets, and that belong to the whole kernel
// and not to a namespace: it gets files that take the values.
var sysctls = []string{
	"/proc/sys/kernel/keys/root_maxbytes", "/proc/sys/kernel/keys/root_maxkeys",
	"/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
	"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom",
}

// copied are the directories whose changes stay in the sandbox.
var copied = []string{"/etc", "/var/lib", "/var/log"}

// furnish makes the mounts of the sandbox.
func furnish(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts with containers: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// In a user namespace /proc may be mounted only where all of one is to be
	// seen already, which is not so for the one that gets the stand-ins.
	whole := filepath.Join(dir, "proc")
	if err := os.Mkdir(whole, 0o555); err != nil {
		return err
	}
	if err := unix.Mount("proc", whole, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount a second /proc: %w", err)
	}
	for _, path := range copied {
		if err := copyOnWrite(dir, path); err != nil {
			return fmt.Errorf("mount over %s: %w", path, err)
		}
	}
	for _, path := range replaced {
		own := filepath.Join(dir, "root", path)
		if err := errors.Join(os.MkdirAll(own, 0o755), os.MkdirAll(path, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount over %s: %w", path, err)
		}
	}
	for _, path := range sysctls {
		if err := standIn(dir, path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return unix.Sethostname([]byte("node1"))
}

// copyOnWrite mounts an overlay over a directory. What is to hold overlays of
// its own, such as containerd's snapshots, needs another mount in it.
func copyOnWrite(dir, path string) error {
	upper, work := filepath.Join(dir, "upper", path), filepath.Join(dir, "work", path)
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o700)); err != nil {
		return err
	}
	return unix.Mount("overlay", path, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", path, upper, work))
}

// standIn puts a file with the same content in the place of a sysctl.
func standIn(dir, path string) error {
	value, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	own := filepath.Join(dir, "sysctl-"+strings.ReplaceAll(strings.TrimPrefix(path, "/proc/sys/"), "/", "-"))
	if err := os.WriteFile(own, value, 0o644); err != nil {
		return err
	}
	return unix.Mount(own, path, "", unix.MS_BIND, "")
}
