package journal

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// disk is an ext4 on a loop device whose power can be cut. It is mounted nowhere:
// whoever makes a mount namespace at the time would copy the mount, and a file
// system that stays mounted there comes back without its power.
type disk struct {
	t      *testing.T
	device string
	mnt    int
}

// newDisk makes one of 96 MiB.
func newDisk(t *testing.T) *disk {
	t.Helper()
	require.Zero(t, os.Geteuid(), "needs root: loop devices and mounts")
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 96<<20))
	run(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
	d := &disk{t: t, device: strings.TrimSpace(run(t, "losetup", "--find", "--show", image)), mnt: -1}
	t.Cleanup(func() { run(t, "losetup", "--detach", d.device) })
	d.mount()
	t.Cleanup(d.unmount)
	return d
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
	return string(out)
}

func (d *disk) mount() {
	d.t.Helper()
	fs, err := unix.Fsopen("ext4", unix.FSOPEN_CLOEXEC)
	require.NoError(d.t, err)
	defer unix.Close(fs)
	require.NoError(d.t, unix.FsconfigSetString(fs, "source", d.device))
	require.NoError(d.t, unix.FsconfigCreate(fs))
	d.mnt, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	require.NoError(d.t, err)
}

func (d *disk) unmount() {
	d.t.Helper()
	if d.mnt >= 0 {
		require.NoError(d.t, unix.Close(d.mnt))
	}
	d.mnt = -1
}

func (d *disk) root() string { return fmt.Sprintf("/proc/self/fd/%d", d.mnt) }

// EXT4_IOC_SHUTDOWN of fs/ext4/ext4.h, _IOR('X', 125, __u32): what is not on the
// device is lost from now on. With the flag not even the file system's own log is
// written out.
const (
	ext4Shutdown   = 0x8004587d
	shutdownNoSync = 2
)

// cut makes the disk lose power. Files must be closed before it comes back.
func (d *disk) cut() {
	d.t.Helper()
	f, err := os.Open(d.root())
	require.NoError(d.t, err)
	defer f.Close()
	require.NoError(d.t, unix.IoctlSetPointerInt(int(f.Fd()), uint(ext4Shutdown), shutdownNoSync))
}

// TestPowerCut cuts the power of a real file system at random moments, while the
// journal is committed behind a writer, and looks at what is there when it has
// come back: all that was promised, and nothing but what was appended.
func TestPowerCut(t *testing.T) {
	d := newDisk(t)
	o := Options{Durability: Disk, SegmentBytes: 256 << 10}
	rng := rand.New(rand.NewPCG(7, 7))
	next, lost := 0, 0
	for round := range 8 {
		o.Dir = filepath.Join(d.root(), "state", "journal")
		j, err := Open(o)
		require.NoError(t, err, "round %d", round)
		ended := make(chan struct{}, 1)
		begun, moment := j.End(), time.Duration(20+rng.IntN(60))*time.Millisecond
		cut := make(chan Position)
		go func() {
			for j.Committed() <= begun { // on a busy disk it takes its time
				time.Sleep(time.Millisecond)
			}
			time.Sleep(moment)
			promised := j.Committed()
			d.cut()
			cut <- promised
		}()
		for err == nil {
			for range 1 + rng.IntN(20) {
				numbered(j, next, rng.IntN(2000))
				next++
			}
			_, err = j.CommitBehind(func() {
				select {
				case ended <- struct{}{}:
				default:
				}
			})
			select {
			case <-ended:
			case <-time.After(time.Duration(rng.IntN(300)) * time.Microsecond):
			}
		}
		promised := <-cut
		require.Greater(t, promised, begun)
		require.Error(t, j.Close(), "the disk has no power")
		d.unmount()
		d.mount()

		o.Dir = filepath.Join(d.root(), "state", "journal")
		after, err := Open(o)
		require.NoError(t, err, "round %d", round)
		require.GreaterOrEqual(t, after.End(), promised, "round %d", round)
		recs := readJournal(t, after)
		require.NoError(t, checkNumbered(recs, 0))
		require.LessOrEqual(t, len(recs), next)
		lost += next - len(recs)
		next = len(recs)
		require.NoError(t, after.Close())
	}
	require.NotZero(t, lost, "no cut came between an append and its commit")
}
