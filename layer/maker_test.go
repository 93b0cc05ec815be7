package layer

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// tmpfsOfUsers mounts a tmpfs in a user namespace, whose root is user 300000 of
// the host, and returns a path to it.
func tmpfsOfUsers(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", "mount -t tmpfs -o mode=755 tmpfs /mnt && echo mounted && read x")
	maps := []syscall.SysProcIDMap{{HostID: 300_000, Size: 1 << 16}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: maps, GidMappings: maps, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // read fails at the end of its input
	})
	said, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "mounted\n", said)
	return fmt.Sprintf("/proc/%d/root/mnt", cmd.Process.Pid)
}

// TestRollbackInUserNamespace makes files again where the host's root may make
// none, and leaves the thread as it was.
func TestRollbackInUserNamespace(t *testing.T) {
	dir := tmpfsOfUsers(t)
	require.ErrorIs(t, os.WriteFile(filepath.Join(dir, "x"), nil, 0o600), unix.EOVERFLOW, "the tmpfs is like any other")
	fill := func() {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "sub/empty"), 0o755))
		for name, owner := range map[string]int{"a": 300_000, "sub/b": 300_033} {
			path := filepath.Join(dir, name)
			require.NoError(t, os.WriteFile(path, []byte(name), 0o640))
			require.NoError(t, os.Chown(path, owner, owner))
		}
		require.NoError(t, os.Symlink("a", filepath.Join(dir, "link")))
		require.NoError(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "sub/hard")))
		require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	}
	require.NoError(t, asOwner(300_000, 300_000, func() error { fill(); return nil }))
	before := describe(t, dir, false)
	snap := filepath.Join(t.TempDir(), "snap")
	draft, err := Prepare(snap, "", Limits{})
	require.NoError(t, err)
	_, err = draft.Capture(t.Context(), dir)
	require.NoError(t, err)
	for _, name := range []string{"a", "sub", "link", "fifo"} {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, name)))
	}
	_, err = Rollback(t.Context(), snap, dir)
	require.NoError(t, err)
	require.Equal(t, before, describe(t, dir, false))
	entries, err := os.ReadDir(snap)
	require.NoError(t, err)
	for _, e := range entries {
		st, err := e.Info()
		require.NoError(t, err)
		require.Zero(t, st.Sys().(*syscall.Stat_t).Uid, "%s belongs to a user of the namespace", e.Name())
	}
}
