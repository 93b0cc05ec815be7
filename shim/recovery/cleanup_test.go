package recovery

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCleanupElsewhere: the node file has changed since the container was created.
func TestCleanupElsewhere(t *testing.T) {
	root, bundle, node := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "node.toml")
	t.Setenv("CRSC_CONFIG", node)
	configure := func(text string) {
		t.Helper()
		require.NoError(t, os.WriteFile(node, []byte(text), 0o600))
	}
	state := func(root string) string {
		t.Helper()
		dir := filepath.Join(root, "k8s.io", "app")
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "journal"), 0o700))
		return dir
	}
	note := func(text string) {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(bundle, stateFile), []byte(text), 0o600))
	}
	cleanup := func() error { return Cleanup(t.Context(), "k8s.io", "app", bundle) }

	dir, other := state(root), t.TempDir()
	note(dir)
	for _, text := range []string{"bogus = 1", "state_dir = \"" + other + "\""} {
		configure(text)
		state(root)
		require.NoError(t, cleanup(), text)
		require.NoDirExists(t, dir, text)
		require.NoError(t, cleanup(), "there is nothing any more")
	}

	// By the node file, if the bundle does not tell, or of another container.
	for _, text := range []string{"", "relative", filepath.Join(root, "k8s.io", "another"), filepath.Join(root, "k8s.io", "app", ".."), "/"} {
		note(text)
		state(root)
		here := state(other)
		require.NoError(t, cleanup(), text)
		require.NoDirExists(t, here, text)
		require.DirExists(t, dir, text)
	}
	configure("bogus = 1")
	require.ErrorContains(t, cleanup(), node)
	require.DirExists(t, dir)
}
