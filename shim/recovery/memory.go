package recovery

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// imageOverhead is what CRIU's images hold beside memory, at most.
	imageOverhead = 2 << 20
	// nodeReserve is the part of a node's memory, one in nodeReserve, that stays
	// available whatever the limits of containers allow.
	nodeReserve = 10
)

// errNoMemory is a reason to write a checkpoint to disk.
var errNoMemory = errors.New("no memory for checkpoints")

// memory is a tmpfs for CRIU's images, private to the shims of this host: a
// frozen container does not wait for a disk, which takes two to five times as
// long as soon as somebody else writes to it. What is in it counts as memory of
// the shim's cgroup, not of the container's.
type memory struct {
	dir   string
	node  nodeMemory
	spare *spare
}

// memoryName is that of the tmpfs in a container's state directory.
const memoryName = "memory"

// openMemory mounts the tmpfs at dir, in place of one that a killed shim left.
// limit is in bytes.
func openMemory(dir string, limit int64, node nodeMemory) (*memory, error) {
	if err := removeMemory(dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	opts := "mode=0700,size=" + strconv.FormatInt(limit, 10)
	// Large pages halve the time that many small ones take. A kernel without
	// them refuses the option.
	err := unix.Mount("crsc", dir, "tmpfs", flags, opts+",huge=within_size")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("crsc", dir, "tmpfs", flags, opts)
	}
	if err == nil {
		err = unix.Mount("", dir, "", unix.MS_PRIVATE, "")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tmpfs for checkpoints at %s: %w", dir, err), removeMemory(dir))
	}
	return &memory{dir: dir, node: node, spare: &spare{dir: filepath.Join(dir, "spare")}}, nil
}

// removeMemory unmounts whatever is mounted at dir and removes it. What is in it
// is lost. It is no error if there is nothing.
func removeMemory(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
	}
	for _, path := range []string{dir, dir + reservedSuffix} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// images is the directory for those of a checkpoint.
func (m *memory) images(seq uint64) string {
	return filepath.Join(m.dir, strconv.FormatUint(seq, 10))
}

// room looks whether need bytes fit, now and, if it were empty, ever, into the
// tmpfs and into what the node has for checkpoints.
//
// Errors: errNoMemory if they do not.
func (m *memory) room(need int64) (ever bool, err error) {
	if ever, err := m.roomHere(need); err != nil {
		return ever, err
	}
	return m.node.room(m.dir, need)
}

// roomHere is room without regard to other containers.
func (m *memory) roomHere(need int64) (ever bool, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.dir, &fs); err != nil {
		return false, &os.PathError{Op: "statfs", Path: m.dir, Err: err}
	}
	size, free := int64(fs.Blocks)*fs.Bsize, int64(fs.Bfree)*fs.Bsize
	if need > free {
		return need <= size, fmt.Errorf("%w: %d MiB are needed, and of the %d MiB of crsc.io/checkpoint-memory %d are free", errNoMemory, need>>20, size>>20, free>>20)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return false, os.NewSyscallError("sysinfo", err)
	}
	available, err := readField("/proc/meminfo", "MemAvailable:")
	if err != nil {
		return false, err
	}
	total := int64(info.Totalram) * int64(info.Unit)
	if left := int64(available)<<10 - need; left < total/nodeReserve {
		return true, fmt.Errorf("%w: %d MiB are needed, and the node has %d MiB available", errNoMemory, need>>20, available>>10)
	}
	return true, nil
}

// resident estimates how large the images of a container would be, from what
// its cgroup uses. It is 0 if the kernel does not tell.
func (m *memoryFiles) resident() int64 {
	names := []string{"anon", "shmem"}
	if m.inactive == "total_inactive_file" { // version 1
		names = []string{"total_rss", "total_shmem", "total_swap"}
	}
	sum := int64(0)
	for _, name := range names {
		// A kernel without swap accounting has no field for it.
		if n, err := readField(m.stat, name); err == nil {
			sum += int64(n)
		}
	}
	return sum
}
