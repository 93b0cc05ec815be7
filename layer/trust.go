package layer

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// trust decides whether an identity that is seen again will mean an unchanged
// file.
type trust struct {
	// writeNotify: the first store to a clean page of a shared mapping faults
	// and sets the times (page_mkwrite). tmpfs has no such thing: a mapping
	// that was read first is written to without a trace.
	writeNotify bool
	// fine: a change after the times were read gives other times, however soon
	// it comes (multigrain timestamps, Linux 6.13).
	fine bool
	// now is the coarse clock, nanoseconds, that else stamps files: what
	// changes later is stamped with this or a later time.
	now int64
}

func newTrust(fd int) (trust, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return trust{}, fmt.Errorf("statfs: %w", err)
	}
	var t trust
	switch fs.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
		t.writeNotify, t.fine = true, kernelAtLeast(6, 13)
	case unix.TMPFS_MAGIC:
		t.fine = kernelAtLeast(6, 13)
	}
	return t, t.tick()
}

// settle waits until what changes from now on is stamped later than any of the
// identities: one tick of the kernel, 1 to 10 ms.
func (t *trust) settle(ids []identity) error {
	var latest int64
	for _, id := range ids {
		latest = max(latest, id.ctime)
	}
	// A ctime in the future, from before the clock was set back, is not waited for.
	for range 50 {
		if err := t.tick(); err != nil || latest < t.now {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	for i := range ids {
		ids[i].trusted = ids[i].trusted && ids[i].ctime < t.now
	}
	return nil
}

// tick reads the clock. It is good for files that can't change until all of
// them have been looked at.
func (t *trust) tick() error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		return fmt.Errorf("clock: %w", err)
	}
	t.now = ts.Nano()
	return nil
}

// metadata reports whether a change of the inode can be told by its times.
func (t *trust) metadata(st *unix.Statx_t) bool {
	return t.fine || nanoseconds(st.Ctime) < t.now
}

// contents reports whether also a change of the open file's bytes can be told
// by its times. A dirty page may be mapped writable, so that further stores
// to it leave no trace. This takes a descriptor that is open for writing, or was
// when it was mapped; no lease is given out on a file that has one.
func (t *trust) contents(fd int, st *unix.Statx_t) bool {
	if !t.writeNotify || !t.metadata(st) {
		return false
	}
	if st.Size == 0 {
		return true // a page of it can't be mapped
	}
	var stat unix.Cachestat_t
	err := unix.Cachestat(uint(fd), &unix.CachestatRange{}, &stat, 0) // Linux 6.5
	if err == nil && stat.Dirty == 0 {
		return true
	}
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return false
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err == nil
}

func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	var a, b int
	if unix.Uname(&u) != nil {
		return false
	}
	release, _, _ := bytes.Cut(u.Release[:], []byte{0})
	if n, _ := fmt.Sscanf(string(release), "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

// bootID identifies this run of the kernel.
func bootID() (id [16]byte, err error) {
	const file = "/proc/sys/kernel/random/boot_id"
	b, err := os.ReadFile(file)
	if err != nil {
		return id, err
	}
	digits := bytes.ReplaceAll(bytes.TrimSpace(b), []byte("-"), nil)
	if len(digits) != 32 {
		return id, fmt.Errorf("%s: %q is not an identifier", file, b)
	}
	_, err = hex.Decode(id[:], digits)
	return id, err
}
