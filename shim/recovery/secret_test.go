package recovery

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
)

// TestSecretIsDestroyed: also the copy that somebody holds open, and what a killed
// shim left.
func TestSecretIsDestroyed(t *testing.T) {
	state := t.TempDir()
	key, err := newSecret(state)
	require.NoError(t, err)
	path := filepath.Join(secretDir(state), keyFile)
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(path, &fs))
	require.EqualValues(t, unix.RAMFS_MAGIC, fs.Type)
	for path, want := range map[string]uint32{path: 0o600, secretDir(state): 0o700} {
		var st unix.Stat_t
		require.NoError(t, unix.Stat(path, &st))
		require.Equal(t, want, st.Mode&0o7777, path)
	}
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	text, err := io.ReadAll(f)
	require.NoError(t, err)
	read, err := journal.ParseKey(text)
	require.NoError(t, err)
	require.Equal(t, key, read)

	require.NoError(t, destroySecret(state))
	_, err = f.Seek(0, io.SeekStart)
	require.NoError(t, err)
	text, err = io.ReadAll(f)
	require.NoError(t, err)
	require.Equal(t, make([]byte, len(key.Text())), text)
	require.NoDirExists(t, secretDir(state))
	b, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	require.NotContains(t, string(b), state)
	require.NoError(t, destroySecret(state), "once more is no harm")

	again, err := newSecret(state)
	require.NoError(t, err)
	require.NotEqual(t, key, again)
	require.NoError(t, destroySecret(state))
}

// TestSecretFollowsNoLink of somebody who could write there.
func TestSecretFollowsNoLink(t *testing.T) {
	state := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, []byte("mine"), 0o600))
	require.NoError(t, os.Mkdir(secretDir(state), 0o700))
	require.NoError(t, os.Symlink(victim, filepath.Join(secretDir(state), keyFile)))
	require.Error(t, destroySecret(state))
	b, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "mine", string(b))
}
