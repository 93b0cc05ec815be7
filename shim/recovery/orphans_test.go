package recovery

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
)

// TestOrphans: those of the pod whose shim has ended, also if nobody has waited for
// it yet, and nobody else.
func TestOrphans(t *testing.T) {
	root := t.TempDir()
	node := filepath.Join(t.TempDir(), "node.toml")
	require.NoError(t, os.WriteFile(node, []byte("state_dir = \""+root+"\"\n"), 0o600))
	t.Setenv("CRSC_CONFIG", node)
	orphans := func() []string {
		t.Helper()
		ids, err := Orphans("k8s.io", "sandbox")
		require.NoError(t, err)
		return ids
	}
	require.Empty(t, orphans(), "there is no state at all")

	shim := exec.Command("sleep", "1000")
	require.NoError(t, shim.Start())
	t.Cleanup(func() { _ = shim.Wait() }) // it is killed
	write := func(namespace, id, sandbox string, pid int) {
		t.Helper()
		started, err := startOf(pid)
		require.NoError(t, err)
		dir := filepath.Join(root, namespace, id)
		require.NoError(t, os.MkdirAll(dir, 0o700))
		data, err := json.Marshal(status.Status{ID: id, Namespace: namespace, ShimPid: pid, ShimStarted: started, Pod: &status.Pod{Sandbox: sandbox}})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "status.json"), data, 0o600))
	}
	write("k8s.io", "app", "sandbox", shim.Process.Pid)
	write("k8s.io", "living", "sandbox", os.Getpid())
	write("k8s.io", "of-another", "sandbox-2", shim.Process.Pid)
	write("default", "elsewhere", "sandbox", shim.Process.Pid)
	require.NoError(t, os.MkdirAll(filepath.Join(root, "k8s.io", "sandbox", "estates"), 0o700))
	require.Empty(t, orphans(), "the shim lives")

	require.NoError(t, shim.Process.Kill())
	require.Eventually(t, func() bool { return len(orphans()) > 0 }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, []string{"app"}, orphans())
	require.True(t, ended(os.Getpid(), 1), "another process has got its PID")
	require.False(t, ended(os.Getpid(), 0), "of a shim that did not write it down")
}
