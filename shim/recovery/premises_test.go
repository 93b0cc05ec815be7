package recovery

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPremises: a directory that is removed, or put in another's place, is missed once,
// and not before it is time to look.
func TestPremises(t *testing.T) {
	for _, name := range []string{journalName, checkpointsName} {
		p := premises{dir: t.TempDir()}
		now := time.Now()
		look := func() error {
			now = now.Add(premisesEvery)
			return p.look(now)
		}
		for _, each := range []string{journalName, checkpointsName} {
			require.NoError(t, os.Mkdir(filepath.Join(p.dir, each), 0o700))
		}
		require.NoError(t, look())
		require.NoError(t, look())

		path := filepath.Join(p.dir, name)
		require.NoError(t, os.Rename(path, path+".away"))
		require.NoError(t, p.look(now), "it is not time yet")
		require.EqualError(t, look(), "somebody has removed "+path)
		require.NoError(t, os.Mkdir(path, 0o700))
		require.EqualError(t, look(), "somebody has put another "+path+" in the place of the one in use")
		p.forget()
		require.NoError(t, look(), "the new one counts")
		require.NoError(t, look())
	}
}
