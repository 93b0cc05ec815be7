package criu

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/mnt"
	"golang.org/x/sys/unix"
)

// mountFact is what of a mount CRIU makes has to be as it is in the container.
type mountFact struct {
	target, fstype, root string
	parent               string // target of the mount that it is on
	flags                string
	outside, odd         bool
}

// describe writes a mount so that equal text is equal access. A file system that
// is not the container's own, and the root, are bound by CRIU from where the pins
// are: their type and root may differ from place to place. Which tmpfs hides a
// path is up to runc's version.
func (f mountFact) describe(masked []string) string {
	what := f.fstype + " " + f.root
	switch {
	case f.odd:
		what = "of an unknown kind"
	case f.target == "/":
		what = "root"
	case f.fstype == "tmpfs" && slices.Contains(masked, f.target):
		what = "masked"
	case f.outside:
		what = "from outside"
	}
	on := ""
	if f.target != "/" {
		on = " on " + f.parent
	}
	return fmt.Sprintf("%s (%s%s)%s", f.target, what, f.flags, on)
}

// fsTypes are the file systems of enum fstype in CRIU's mnt.proto.
var fsTypes = map[uint32]string{1: "proc", 2: "sysfs", 3: "devtmpfs", 5: "tmpfs", 6: "devpts", 12: "cgroup", 14: "mqueue", 17: "overlay", 23: "cgroup2"}

func (c *Contents) readMounts(images fs.FS, masked []string) error {
	files, err := fs.Glob(images, "mountpoints-*.img")
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return fmt.Errorf("%w: %d mount namespaces", ErrCorrupt, len(files))
	}
	targets, parents := map[uint32]string{}, []uint32{}
	var facts []mountFact
	err = readEntries(images, files[0], magicMnts, func(m *mnt.MntEntry) error {
		f := mountFact{target: cleanTarget(m.GetMountpoint()), fstype: fsTypes[m.GetFstype()], root: m.GetRoot(), outside: m.ExtKey != nil}
		f.flags = mountFlags(func(flag uint32) bool { return m.GetFlags()&flag != 0 }, m.GetSharedId() != 0)
		// Extras that CRIU does not write for what Dump pins.
		f.odd = m.GetWithPlugin() || m.GetExtMount() || m.GetDeleted() || m.Fsname != nil || f.outside && m.GetExtKey() != f.target
		if f.fstype == "proc" {
			c.procs = append(c.procs, f.target)
		}
		targets[m.GetMntId()] = f.target
		facts, parents = append(facts, f), append(parents, m.GetParentMntId())
		return nil
	})
	for i, f := range facts {
		f.parent = targets[parents[i]]
		c.Mounts = append(c.Mounts, f.describe(masked))
	}
	slices.Sort(c.Mounts)
	return err
}

func mountFlags(has func(uint32) bool, shared bool) (out string) {
	for _, flag := range []struct {
		bit  uint32
		name string
	}{{unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"}} {
		if has(flag.bit) {
			out += ", " + flag.name
		}
	}
	if shared {
		out += ", shared"
	}
	return out
}

// MountTable describes the mounts of the container's process pid, sorted, in the
// form of Contents.Mounts. masked are the paths that the spec hides.
func (p *Pins) MountTable(pid int, masked []string) ([]string, error) {
	list, err := readMounts(pid)
	if err != nil {
		return nil, err
	}
	targets := map[string]string{}
	for _, m := range list {
		targets[m.id] = cleanTarget(m.target)
	}
	var out []string
	for _, m := range list {
		f := mountFact{target: cleanTarget(m.target), fstype: m.fstype, root: m.root, parent: targets[m.parent]}
		f.outside = slices.ContainsFunc(p.Mounts, func(pinned PinnedMount) bool { return cleanTarget(pinned.Container) == f.target })
		f.flags = mountFlags(func(flag uint32) bool { return m.flags&flag != 0 }, m.shared)
		out = append(out, f.describe(masked))
	}
	slices.Sort(out)
	return out, nil
}

func cleanTarget(s string) string { return filepath.Clean("/" + strings.TrimPrefix(s, ".")) }
