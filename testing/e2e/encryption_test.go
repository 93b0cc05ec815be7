package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
)

// TestEncryptedJournal: clients notice nothing of it, the disk has nothing of what
// they said, and the key is gone with the container, also if its shim is killed.
func TestEncryptedJournal(t *testing.T) {
	t.Parallel()
	const secret = "attack at dawn"
	for name, end := range map[string]func(c *container){
		"deleted": func(c *container) { c.ctr("task", "rm", "--force", c.id) },
		"shim killed": func(c *container) {
			shim, err := c.e.Shim(c.id)
			require.NoError(c.t, err)
			require.NoError(c.t, syscall.Kill(shim, syscall.SIGKILL))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := redis(t, noTriggers("journal-encryption", "true"))
			k := c.dial()
			c.await("protection", func(s *status.Status) bool { return s.Protected })
			require.Equal(t, "OK", k.do("SET", "plan", secret))
			require.Equal(t, "1", k.do("INCR", "n"))
			dir := filepath.Join(c.stateDir(), "journal")
			segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
			require.NoError(t, err)
			require.NotEmpty(t, segments)
			for _, path := range segments {
				b, err := os.ReadFile(path)
				require.NoError(t, err)
				require.False(t, bytes.Contains(b, []byte(secret)), path)
			}
			out, err := c.e.Command(t.Context(), "crsc", "journal", "dump", "--payload", dir).CombinedOutput()
			require.NoError(t, err, string(out))
			require.Contains(t, string(out), secret, "the operator's tool finds the key")

			c.crash()
			require.Equal(t, "2", k.do("INCR", "n"))
			require.Equal(t, secret, k.do("GET", "plan"))
			key, err := os.Open(filepath.Join(c.stateDir(), "secret", "journal.key"))
			require.NoError(t, err)
			defer key.Close()
			end(c)
			require.Eventually(t, func() bool {
				_, err := os.Lstat(c.stateDir())
				return os.IsNotExist(err)
			}, patience, 10*time.Millisecond, "the state goes with the container")
			mounts, err := os.ReadFile("/proc/self/mountinfo")
			require.NoError(t, err)
			require.NotContains(t, string(mounts), c.stateDir())
			b := make([]byte, 64)
			_, err = key.Read(b)
			require.NoError(t, err)
			require.Empty(t, strings.Trim(string(b), "\x00"), "the key is overwritten")
		})
	}
}
