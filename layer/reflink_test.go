package layer

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// newDisk mounts a new file system on a loop device.
func newDisk(t testing.TB, mkfs ...string) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	image, at := filepath.Join(dir, "disk"), filepath.Join(dir, "mounted")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 512<<20))
	require.NoError(t, os.Mkdir(at, 0o755))
	run(t, mkfs[0], append(mkfs[1:], image)...)
	run(t, "mount", "-o", "loop", image, at)
	t.Cleanup(func() { run(t, "umount", at) })
	return at
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s (testing/env/install packages)", name, args, out)
}

// onDisk is what a file system has allocated, in bytes.
func onDisk(t testing.TB, dir string) int64 {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Syncfs(fd))
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &fs))
	return int64(fs.Blocks-fs.Bfree) * fs.Bsize
}

// TestReflink: where the file system can share blocks, a capture takes none for
// the contents of large files, of which the length is no multiple of a block,
// and neither the way back nor a later change of the file touches the snapshot.
func TestReflink(t *testing.T) {
	const size = 48<<20 + 1234
	for _, mkfs := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1"}, {"mkfs.btrfs", "-q"}} {
		t.Run(mkfs[0], func(t *testing.T) {
			disk := newDisk(t, mkfs...)
			upper, snapshot := filepath.Join(disk, "upper"), filepath.Join(disk, "snapshot")
			content := make([]byte, size)
			_, err := rand.NewChaCha8([32]byte{7}).Read(content)
			require.NoError(t, err)
			write(t, upper+"/small", "small")
			file := filepath.Join(upper, "file")
			require.NoError(t, os.WriteFile(file, content, 0o600))
			before := onDisk(t, disk)
			begun := time.Now()
			mustCapture(t, upper, snapshot, "")
			took := time.Since(begun)
			require.NoError(t, Sync(snapshot))
			grown := onDisk(t, disk) - before
			t.Logf("capture of %d MiB: %v, %d KiB on disk", size>>20, took, grown>>10)
			require.Less(t, grown, int64(size/8), "blocks are not shared")

			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt(bytes.Repeat([]byte("changed"), 100_000), 5<<20+17)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			require.NoError(t, os.Truncate(file, size-999))
			for range 2 { // the second time from blocks that the first has shared
				rollBack(t, snapshot, upper)
				got, err := os.ReadFile(file)
				require.NoError(t, err)
				require.True(t, bytes.Equal(content, got), "contents after the way back")
				require.NoError(t, os.WriteFile(file, []byte("other"), 0o600))
			}
		})
	}
}

// BenchmarkReflink compares file systems that share blocks with others, which have
// to copy; dirty are files that are not on disk yet, as an
// application leaves them.
func BenchmarkReflink(b *testing.B) {
	const size = 48 << 20
	for _, mkfs := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1"}, {"mkfs.xfs", "-q", "-m", "reflink=0"}, {"mkfs.btrfs", "-q"}, {"mkfs.ext4", "-q"}} {
		for _, dirty := range []bool{false, true} {
			name := filepath.Base(mkfs[0])
			if len(mkfs) > 2 {
				name += "," + mkfs[3]
			}
			if dirty {
				name += ",dirty"
			}
			b.Run(name, func(b *testing.B) {
				disk := newDisk(b, mkfs...)
				upper, snapshot := filepath.Join(disk, "upper"), filepath.Join(disk, "snapshot")
				content := make([]byte, size)
				_, err := rand.NewChaCha8([32]byte{7}).Read(content)
				require.NoError(b, err)
				require.NoError(b, os.Mkdir(upper, 0o755))
				var total time.Duration
				for b.Loop() {
					require.NoError(b, os.RemoveAll(snapshot))
					content[0]++
					require.NoError(b, os.WriteFile(filepath.Join(upper, "file"), content, 0o600))
					if !dirty {
						onDisk(b, disk)
					}
					draft, err := Prepare(snapshot, "", Limits{})
					require.NoError(b, err)
					begun := time.Now()
					_, err = draft.Capture(b.Context(), upper)
					total += time.Since(begun)
					require.NoError(b, err)
				}
				b.ReportMetric(total.Seconds()*1000/float64(b.N), "capture-ms")
			})
		}
	}
}
