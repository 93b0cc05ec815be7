package layer

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// asOwner runs fn on a thread that makes files as a user and group, and is else
// what it was. A file system that was mounted in a user namespace, and a mount
// whose IDs are mapped, let nobody make a file whom they have no number for: not
// even the host's root.
func asOwner(uid, gid uint32, fn func() error) (err error) {
	if uid == 0 && gid == 0 {
		return fn()
	}
	runtime.LockOSThread()
	err = makeAs(int(uid), int(gid))
	if err == nil {
		err = fn()
	}
	if back := makeAs(0, 0); back != nil {
		return errors.Join(err, back) // the thread ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// makeAs sets the file system IDs of the calling thread and keeps its
// capabilities, of which the kernel takes some away with user 0.
func makeAs(uid, gid int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	for _, set := range []struct {
		fn func(int) (int, error)
		id int
	}{{unix.SetfsgidRetGid, gid}, {unix.SetfsuidRetUid, uid}} {
		// It returns the ID from before, or rather of now with one that no user has.
		if _, err := set.fn(set.id); err != nil {
			return fmt.Errorf("make files as %d:%d: %w", uid, gid, err)
		}
		if now, err := set.fn(-1); err != nil || now != set.id {
			return fmt.Errorf("make files as %d:%d: the kernel refused (%d, %w)", uid, gid, now, err)
		}
	}
	return os.NewSyscallError("capset", unix.Capset(&header, &caps[0]))
}
