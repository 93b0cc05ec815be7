package torture

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/longrun"
)

// TestShortRun is make torture in short.
func TestShortRun(t *testing.T) {
	report, err := Run(t.Context(), Options{Instance: "tortshort", Names: []string{"net-http"}, NoKills: true})
	require.NoError(t, err, "%+v", report)
	require.Equal(t, 1, report.Passed)
	require.Contains(t, report.Tools[0].Proxied, "websocket: ")
	file := filepath.Join(t.TempDir(), "out", "torture.json")
	require.NoError(t, longrun.WriteJSON(file, report))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(data, &fields))
	for _, name := range []string{"passed", "failed", "tools"} {
		require.Contains(t, fields, name)
	}
}
