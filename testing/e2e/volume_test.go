package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/status"
)

func bind(src, dst, access string) string {
	return "--mount=type=bind,src=" + src + ",dst=" + dst + ",options=rbind:" + access
}

// TestSnapshotVolume: memory and volume go back together.
func TestSnapshotVolume(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	dir := t.TempDir()
	c.run("busybox", noTriggers("volumes", "snapshot", "checkpoint-interval", "300ms"),
		[]string{bind(dir, "/vol", "rw"), c.mountApp()}, "/app", "-file", "/vol/data.log")
	k := c.dialApp()
	require.Equal(t, "1", k.ask("add"))
	c.awaitCheckpoint()
	for n := 2; n < 8; n++ {
		require.Equal(t, []string{"", "", "2", "3", "4", "5", "6", "7"}[n], k.ask("add"))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "of the time after"), []byte("x"), 0o600))
		c.crash()
	}
	require.Equal(t, "memory 7 file 7", k.ask("check"))
	data, err := os.ReadFile(filepath.Join(dir, "data.log"))
	require.NoError(t, err)
	require.Equal(t, "1\n2\n3\n4\n5\n6\n7\n", string(data))
}

// TestKubeletMounts: what the kubelet and the CRI mount into every container
// leaves it protected; an emptyDir and the pod's /dev/shm go back with memory.
func TestKubeletMounts(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	root := t.TempDir()
	pod := filepath.Join(root, "kubelet/pods/0f5b0bd4-2ac2-4a1c-b9a5-6f0b2a0a4c3e")
	sandbox := filepath.Join(root, "run/sandboxes/8b0c")
	empty, shm, logFile := filepath.Join(pod, "volumes/kubernetes.io~empty-dir/cache"), filepath.Join(sandbox, "shm"), filepath.Join(pod, "containers/app/0b1fe1f4")
	for _, dir := range []string{empty, shm, filepath.Dir(logFile)} {
		require.NoError(t, os.MkdirAll(dir, 0o755))
	}
	require.NoError(t, unix.Mount("shm", shm, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=1m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(shm, unix.MNT_DETACH)) })
	flags := []string{c.mountApp(), bind(empty, "/cache", "rw"), bind(shm, "/dev/shm", "rw"), bind(logFile, "/dev/termination-log", "rw")}
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		file := filepath.Join(sandbox, name)
		require.NoError(t, os.WriteFile(file, []byte("127.0.0.1 localhost\n"), 0o644))
		flags = append(flags, bind(file, "/etc/"+name, "rw"))
	}
	require.NoError(t, os.WriteFile(logFile, nil, 0o666))

	c.run("busybox", protected("checkpoint-interval", "300ms"), flags, "/app", "-file", "/cache/data.log")
	k := c.dialApp()
	require.Equal(t, "1", k.ask("add"))
	require.NoError(t, os.WriteFile(filepath.Join(shm, "kept"), []byte("kept"), 0o600))
	require.True(t, c.awaitCheckpoint().Protected)
	require.Equal(t, "2", k.ask("add"))
	require.NoError(t, os.WriteFile(filepath.Join(shm, "kept"), []byte("lost"), 0o600))
	// A last word of the crashed process stays for the kubelet to read.
	require.NoError(t, os.WriteFile(logFile, []byte("bye"), 0o666))
	c.crash()
	require.Equal(t, "memory 2 file 2", k.ask("check"))
	data, err := os.ReadFile(filepath.Join(shm, "kept"))
	require.NoError(t, err)
	require.Contains(t, []string{"kept", "lost"}, string(data)) // a checkpoint may have come between
	data, err = os.ReadFile(logFile)
	require.NoError(t, err)
	require.Equal(t, "bye", string(data))
}

// TestVolumeTooLarge: the limit holds at the start, and while the container runs.
func TestVolumeTooLarge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 100<<10), 0o600))
	a := protected("volumes", "snapshot", "volume-max-size", "64Ki", "checkpoint-interval", "300ms")
	c := newContainer(t).run("busybox", a, []string{bind(dir, "/vol", "rw")}, "sleep", "1000")
	require.Contains(t, c.status().Reason, "unprotected: volume /vol is larger than crsc.io/volume-max-size allows (64Ki)")

	dir = t.TempDir()
	large := filepath.Join(dir, "large")
	c = newContainer(t).run("busybox", a, []string{bind(dir, "/vol", "rw")}, "sleep", "1000")
	require.True(t, c.awaitCheckpoint().Protected)
	require.NoError(t, os.WriteFile(large, make([]byte, 100<<10), 0o600))
	c.await("a failed checkpoint", func(s *status.Status) bool {
		return strings.Contains(s.Checkpoints.LastError, "volume /vol is larger than")
	})
	require.NoError(t, os.Remove(large))
	c.await("a checkpoint after that", func(s *status.Status) bool { return s.Checkpoints.LastError == "" })

	// The last checkpoint stays in force, with the volume as it was.
	require.NoError(t, os.WriteFile(large, make([]byte, 100<<10), 0o600))
	c.await("a failed checkpoint", func(s *status.Status) bool { return s.Checkpoints.LastError != "" })
	require.Regexp(t, c.id+` .*protected.*they fail: .*volume /vol is larger than`, c.crsc("ps"))
	require.NotZero(t, c.crash().Checkpoint)
	require.NoFileExists(t, large)
	c.await("a checkpoint after that", func(s *status.Status) bool { return s.Checkpoints.LastError == "" })
}

// TestSharedVolume: a volume is not rolled back under another container.
func TestSharedVolume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newContainer(t).run("busybox", protected("volumes", "snapshot", "checkpoint-interval", "300ms"), []string{bind(dir, "/vol", "rw")}, "sleep", "1000")
	require.True(t, c.awaitCheckpoint().Protected)
	other := newContainer(t).run("busybox", nil, []string{bind(dir, "/other", "rw")}, "sleep", "1000")
	s := c.await("the end of protection", func(s *status.Status) bool { return !s.Protected })
	require.Contains(t, s.Reason, "volume /vol can't be rolled back, because container "+other.id+" writes to it")
	other.ctr("task", "rm", "--force", other.id)
	c.await("protection", func(s *status.Status) bool { return s.Protected })
}
