package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func filled(t *testing.T) *tree {
	t.Helper()
	tr, err := newTree(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tr.log.Close() })
	for n := 1; n <= 400; n++ {
		require.NoError(t, tr.take(n, fmt.Sprintf("record %d\n", n)))
		if n%97 == 0 {
			require.NoError(t, tr.verify(), n)
		}
	}
	require.NoError(t, tr.verify())
	require.NotEmpty(t, tr.orphans)
	return tr
}

// TestVerifyFinds: whatever is changed behind the program's back is noticed.
func TestVerifyFinds(t *testing.T) {
	for what, change := range map[string]func(*tree) error{
		"a log that is cut":   func(t *tree) error { return os.Truncate(t.path(logName), int64(len(t.written)-1)) },
		"a file too many":     func(t *tree) error { return os.WriteFile(t.path("more"), nil, 0o600) },
		"a file less":         func(t *tree) error { return os.Remove(t.path(t.regular(0))) },
		"a file that grew":    func(t *tree) error { return os.Truncate(t.path(t.regular(0)), 1000) },
		"another name":        func(t *tree) error { return os.Link(t.path(t.regular(0)), filepath.Join(t.dir, "..", "more")) },
		"an orphan that grew": func(t *tree) error { return t.orphans[0].file.Truncate(5000) },
		"a filled hole": func(t *tree) error {
			data, err := os.ReadFile(t.path("sparse-0"))
			if err != nil {
				return err
			}
			return os.WriteFile(t.path("sparse-0"), data, 0o600)
		},
		"another link": func(t *tree) error {
			if err := os.Remove(t.path("symlink-0")); err != nil {
				return err
			}
			return os.Symlink("/x", t.path("symlink-0"))
		},
	} {
		tr := filled(t)
		require.NoError(t, change(tr), what)
		require.Error(t, tr.verify(), what)
	}
}
