package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/mnt"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// CRIU opens the files, and makes the deleted ones again, by the paths that they
// had, with the host's rights, and in tasks that still hold its own descriptors:
// a link on a volume, made after the checkpoint, can lead it through /proc/self/fd
// out of the container. No such path has a link in it, so none is followed: all
// mounts are made with nosymfollow (Linux 5.10), and lose it again before the
// tasks run; all but procfs, where CRIU needs the links itself.

// linklessDir, in the directory of the images, has their files under the same
// names, but for those that are not restored as they are.
const linklessDir = "linkless"

// makeLinkless makes the directory from which images are restored. In those that
// were moved the tasks have no login user, whom the audit log would name: nobody
// logged in here.
func makeLinkless(images string, pins *Pins, moved bool) (dir string, err error) {
	groups, err := newRegroup(pins, moved)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(images, linklessDir)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	list, err := os.ReadDir(images)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	for _, e := range list {
		from, to := filepath.Join(images, e.Name()), filepath.Join(dir, e.Name())
		table, _ := filepath.Match("mountpoints-*.img", e.Name())
		core, _ := filepath.Match("core-*.img", e.Name())
		switch {
		case table:
			err = rewrite(from, to, magicMnts, func(m *mnt.MntEntry) {
				withoutLinks(m)
				groups.change(m)
			})
		case core && moved:
			err = rewrite(from, to, magicCore, withoutLogin)
		case e.Type().IsRegular() && filepath.Ext(e.Name()) != ".log":
			err = os.Link(from, to)
		case e.Name() == parentLink:
			err = linkParent(from, to)
		}
		if err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
	}
	return dir, nil
}

// linkParent copies a parentLink.
func linkParent(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	if !filepath.IsLocal(target) {
		return fmt.Errorf("%w: %s leads to %s", ErrCorrupt, from, target)
	}
	return os.Symlink(filepath.Join("..", target), to)
}

func withoutLinks(m *mnt.MntEntry) {
	if fsTypes[m.GetFstype()] != "proc" {
		m.Flags = proto.Uint32(m.GetFlags() | unix.MS_NOSYMFOLLOW)
	}
}

func withoutLogin(c *criu_core.CoreEntry) {
	if c.GetTc() != nil {
		c.Tc.Loginuid = nil
	}
}

// rewrite copies an image and changes its entries. What the protobuf of go-criu
// does not know stays.
func rewrite[T any, P message[T]](from, to string, magic uint32, change func(P)) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	off, err := header(b, magic)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	out := slices.Clone(b[:off])
	err = parseRaw(b, magic, func(entry []byte) error {
		m, err := decode[T, P](entry)
		if err != nil {
			return err
		}
		change(m)
		if entry, err = proto.Marshal(m); err != nil {
			return err
		}
		out = append(binary.NativeEndian.AppendUint32(out, uint32(len(entry))), entry...)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return os.WriteFile(to, out, 0o600)
}

// allowLinks gives the mounts of a restored container, that nothing runs in yet,
// back what makeLinkless took.
func (p *Pins) allowLinks(pid int) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := enter([]string{fmt.Sprintf("/proc/%d/ns/mnt", pid)}); err != nil {
			return err
		}
		attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NOSYMFOLLOW}
		if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &attr); err != nil {
			return fmt.Errorf("allow links in the mounts: %w", err)
		}
		attr = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSYMFOLLOW}
		for _, m := range p.Mounts {
			if !m.NoLinks {
				continue
			}
			if err := unix.MountSetattr(unix.AT_FDCWD, m.Container, unix.AT_SYMLINK_NOFOLLOW, &attr); err != nil {
				return fmt.Errorf("allow no links in %s: %w", m.Container, err)
			}
		}
		return nil
	})
}
