package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/config"
)

// TestStateDirIsTheAgents: the node file gets the directory that the agent looks
// into, and an install with two is refused before anything is restarted.
func TestStateDirIsTheAgents(t *testing.T) {
	for name, tc := range map[string]struct{ file, flag, want string }{
		"neither":         {"log_level = \"debug\"\n", "", config.DefaultStateDir},
		"the default":     {"log_level = \"debug\"\n", config.DefaultStateDir, config.DefaultStateDir},
		"the flag":        {"log_level = \"debug\"\n[annotations]\nforbid = [\"crsc.io/publish\"]\n", "/mnt/crsc", "/mnt/crsc"},
		"the file":        {"state_dir = \"/mnt/crsc\"\n", "", "/mnt/crsc"},
		"both":            {"state_dir = \"/mnt/crsc\"\n", "/mnt/crsc", "/mnt/crsc"},
		"both, different": {"state_dir = \"/mnt/crsc\"\n", config.DefaultStateDir, ""},
		"no file":         {"", "/mnt/crsc", "/mnt/crsc"},
	} {
		t.Run(name, func(t *testing.T) {
			host := t.TempDir()
			o := Options{Host: host, StateDir: tc.flag}
			if tc.file != "" {
				o.NodeFile = filepath.Join(t.TempDir(), "config.toml")
				require.NoError(t, os.WriteFile(o.NodeFile, []byte(tc.file), 0o600))
			}
			o, err := o.defaultsAndValidate()
			require.NoError(t, err)
			err = o.writeNodeFile()
			if tc.want == "" {
				require.ErrorIs(t, err, ErrStateDir)
				require.ErrorContains(t, err, "/mnt/crsc")
				return
			}
			require.NoError(t, err)
			n, err := config.Load(filepath.Join(host, nodeFilePath))
			require.NoError(t, err)
			require.Equal(t, tc.want, n.StateDir)
			require.NoError(t, o.writeNodeFile(), "a second time")
		})
	}
	_, err := Options{StateDir: "mnt/crsc"}.defaultsAndValidate()
	require.ErrorContains(t, err, "state-dir")
}
