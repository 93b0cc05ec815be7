package criu

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// User is whom access to files is checked for.
type User struct {
	UID, GID uint32
	Groups   []uint32
	// Capabilities, by number.
	Capabilities uint64
}

// MayOpen returns the first of the files on volumes that u could not open in the
// container of process pid; an empty one, if there is none. Other files came with
// the checkpoint or are the container's image, so that their modes say nothing.
//
// A file that does not exist is left to CRIU.
func (p *Pins) MayOpen(pid int, u User, files []Opened) (not Opened, err error) {
	var volumes []string
	for _, m := range p.Volumes() {
		volumes = append(volumes, cleanTarget(m.Container))
	}
	files = slices.DeleteFunc(slices.Clone(files), func(f Opened) bool { return !isBelow(f.Path, volumes) })
	if len(files) == 0 {
		return Opened{}, nil
	}
	if p.IDMaps != nil {
		if u.Capabilities&(1<<unix.CAP_DAC_OVERRIDE) != 0 {
			return Opened{}, nil // CRIU runs inside, and has no more than that itself
		}
		if u, err = p.IDMaps.outside(u); err != nil {
			return Opened{}, err
		}
	}
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := enter([]string{fmt.Sprintf("/proc/%d/ns/mnt", pid)}); err != nil {
			return err
		}
		if err := u.become(); err != nil {
			return err
		}
		for _, f := range files {
			ok, err := mayAccess(f)
			if err != nil {
				return fmt.Errorf("access to %s: %w", f.Path, err)
			}
			if !ok {
				not = f
				return nil
			}
		}
		return nil
	})
	return not, err
}

// mayAccess asks the kernel for the calling thread. Of what was deleted, the
// directory counts, where CRIU makes it again.
func mayAccess(f Opened) (bool, error) {
	mode := uint32(unix.R_OK)
	if f.Write {
		mode |= unix.W_OK
	}
	name := strings.TrimSuffix(f.Path, " (deleted)")
	for {
		err := unix.Faccessat2(unix.AT_FDCWD, name, mode, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
			return false, nil
		case !errors.Is(err, unix.ENOENT) || name == "/":
			return true, nil // a restore fails for the same reason
		}
		name, mode = path.Dir(name), unix.W_OK|unix.X_OK
	}
}

// become changes the calling thread, which has to be thrown away. The calls are
// raw: the wrappers change all threads of the process.
func (u User) become() error {
	var data [2]unix.CapUserData
	for i := range data {
		data[i].Permitted = uint32(u.Capabilities >> (32 * i))
		data[i].Effective = data[i].Permitted
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	uid, gid := uintptr(u.UID), uintptr(u.GID)
	_, _, groups := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(u.Groups)), uintptr(unsafe.Pointer(unsafe.SliceData(u.Groups))), 0)
	_, _, group := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid)
	_, _, keep := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
	_, _, user := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid)
	_, _, caps := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	for _, errno := range []unix.Errno{groups, group, keep, user, caps} {
		if errno != 0 {
			return fmt.Errorf("become user %d: %w", u.UID, errno)
		}
	}
	return nil
}

// outside is who a user of the namespace is on the host, without rights over it.
func (m *IDMaps) outside(u User) (User, error) {
	uid, ok := hostID(m.UIDs, u.UID)
	gid, ok2 := hostID(m.GIDs, u.GID)
	if !ok || !ok2 {
		return User{}, fmt.Errorf("%w: user %d and group %d are nobody in the user namespace", ErrUnsupported, u.UID, u.GID)
	}
	out := User{UID: uint32(uid), GID: uint32(gid)}
	for _, g := range u.Groups {
		if id, ok := hostID(m.GIDs, g); ok {
			out.Groups = append(out.Groups, uint32(id))
		}
	}
	return out, nil
}
