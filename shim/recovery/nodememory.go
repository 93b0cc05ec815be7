package recovery

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// nodeMemoryLock is below the node's state directory. No namespace of
	// containerd begins with a dot.
	nodeMemoryLock = ".checkpoint-memory"
	// reservedSuffix makes of a container's tmpfs the name of the file that says
	// how large it will be when the dump under way is complete.
	reservedSuffix = ".reserved"
	// lockPatience bounds the wait for another shim's count, which takes some
	// microseconds for each container.
	lockPatience = 500 * time.Millisecond
	lockAgain    = time.Millisecond
)

// nodeMemory bounds what the checkpoints of all containers of a node take in
// memory together. There are no books that could be wrong: each tmpfs is asked
// what is in it, also that of a shim which was killed. What a dump will write is
// in a file, and counts as long as the shim that makes it holds a lock on it.
type nodeMemory struct {
	stateDir string
	limit    int64 // bytes; 0: none
}

// use is what the checkpoints of a container, and of all others, take, in bytes.
type use struct{ own, others int64 }

// reserve books need bytes for the tmpfs at dir, beside what is in it, until
// release is called.
//
// Errors: errNoMemory if that is more than the node has for checkpoints.
func (n *nodeMemory) reserve(dir string, need int64) (release func(), err error) {
	if n.limit == 0 {
		return func() {}, nil
	}
	defer func() {
		if err != nil && !errors.Is(err, errNoMemory) {
			err = fmt.Errorf("%w: count that of the node: %w", errNoMemory, err)
		}
	}()
	unlock, err := n.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	u, err := n.fits(dir, need)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir+reservedSuffix, os.O_CREATE|os.O_TRUNC|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_, err = f.WriteString(strconv.FormatInt(u.own+need, 10))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reserve memory for a checkpoint: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil // which unlocks
}

// room looks whether need bytes fit, now and, if the tmpfs at dir were empty,
// ever.
//
// Errors: errNoMemory if they do not.
func (n *nodeMemory) room(dir string, need int64) (ever bool, err error) {
	if n.limit == 0 {
		return true, nil
	}
	u, err := n.fits(dir, need)
	return u.others+need <= n.limit, err
}

func (n *nodeMemory) fits(dir string, need int64) (use, error) {
	u, err := n.used(dir)
	if err == nil && u.own+u.others+need > n.limit {
		err = fmt.Errorf("%w: %d MiB are needed, and of the %d MiB of checkpoint_memory_max_size this container has %d and the others of the node %d",
			errNoMemory, need>>20, n.limit>>20, u.own>>20, u.others>>20)
	}
	return u, err
}

// lock keeps other shims from counting and reserving at the same time.
func (n *nodeMemory) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(n.stateDir, nodeMemoryLock), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockAgain) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		case time.Now().After(deadline):
			return nil, errors.Join(fmt.Errorf("%w: another shim has held %s for %s", errNoMemory, f.Name(), lockPatience), f.Close())
		}
	}
}

// used counts, for every container below the state directory, what is in its
// tmpfs, or what will be if that is more. dir is the tmpfs of the one that asks.
func (n *nodeMemory) used(dir string) (use, error) {
	var u use
	namespaces, err := os.ReadDir(n.stateDir)
	if err != nil {
		return u, err
	}
	for _, ns := range namespaces {
		if !ns.IsDir() || strings.HasPrefix(ns.Name(), ".") {
			continue
		}
		list, err := os.ReadDir(filepath.Join(n.stateDir, ns.Name()))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return u, err
		}
		for _, c := range list {
			at := filepath.Join(n.stateDir, ns.Name(), c.Name(), memoryName)
			size, err := sizeOf(at)
			if err != nil {
				return u, err
			}
			if at == dir {
				u.own += size
			} else {
				u.others += max(size, reservation(at+reservedSuffix))
			}
		}
	}
	return u, nil
}

// sizeOf is what the tmpfs at a path holds, in bytes; 0 if there is none.
func sizeOf(path string) (int64, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return 0, nil
	}
	if err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	if fs.Type != unix.TMPFS_MAGIC || filepath.Base(path) != memoryName || !isMountpoint(path) {
		return 0, nil
	}
	return int64(fs.Blocks-fs.Bfree) * fs.Bsize, nil
}

// isMountpoint: without a mount the state directory may itself be on a tmpfs.
func isMountpoint(path string) bool {
	var own, above unix.Stat_t
	return unix.Lstat(path, &own) == nil && unix.Lstat(filepath.Dir(path), &above) == nil && own.Dev != above.Dev
}

// maxReservation bounds what is read of a reservation: a decimal number.
const maxReservation = 32

// reservation is what the shim that holds a lock on the file reserves, in bytes;
// 0 if nobody does.
func reservation(path string) int64 {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0
	}
	b, err := io.ReadAll(io.LimitReader(f, maxReservation))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
