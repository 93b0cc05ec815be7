package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tree writes files and returns their root.
func tree(t *testing.T, files map[string]string) string {
	root := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	return root
}

func importing(pkg string, paths ...string) string {
	text := "package " + pkg + "\n"
	for _, p := range paths {
		text += fmt.Sprintf("import _ %q\n", p)
	}
	return text
}

func TestImportDirections(t *testing.T) {
	for _, tc := range []struct {
		file, imports string
		ok            bool
	}{
		{"criu/a.go", module + "/journal", false},
		{"criu/a.go", module + "/criu/internal/x", true},
		{"criu/a_test.go", module + "/testing/env", true},
		{"criu/a.go", module + "/testing/env", false},
		{"criu/a_test.go", module + "/journal", false},
		{"shim/task/a.go", module + "/shim/recovery", false},
		{"shim/task/a.go", module + "/shim/lifecycle", true},
		{"shim/lifecycle/a.go", module + "/shim", false},
		{"shim/a.go", module + "/shim/recovery", true},
		{"shim/internal/x/a.go", module + "/shim/lifecycle", true},
		{"netproxy/replay/a.go", module + "/netproxy/tcprepair", true},
		{"netproxy/a.go", module + "/criu", false},
		{"journal/a.go", module + "/internal/vfs", true},
		{"criuextra/a.go", module + "/config", false},
		{"config/a.go", "fmt", true},
		{"config/a.go", "github.com/containerd/containerd/v2/pkg/shim", true},
		{"config/a.go", "github.com/containerd/containerd/v2/cmd/containerd/server", false},
		{"testing/demo/a.go", module + "/shim/lifecycle", true},
	} {
		dir := filepath.Dir(tc.file)
		problems, err := Check(tree(t, map[string]string{
			tc.file: importing("p", tc.imports), filepath.Join(dir, "doc.go"): "package p\n",
		}))
		require.NoError(t, err)
		if tc.ok {
			assert.Empty(t, problems, "%s imports %s", tc.file, tc.imports)
			continue
		}
		if assert.Len(t, problems, 1, "%s imports %s", tc.file, tc.imports) {
			assert.Contains(t, problems[0].String(), tc.file+":2: ")
			assert.Contains(t, problems[0].Text, "must not import "+tc.imports)
		}
	}
}

func TestLengthMarksAndDescription(t *testing.T) {
	problems, err := Check(tree(t, map[string]string{
		"config/a.go":      "package config\n\nvar x = 1 // TO" + "DO later\n",
		"config/b.go":      "package config\n" + strings.Repeat("\n", maxLines),
		"config/ok.go":     "package config\n" + strings.Repeat("\n", maxLines-1),
		"config/text.go":   "package config\n\nconst s = \"TO" + "DO\" // methodTO" + "DOx\n",
		"cmd/crsc/main.go": "package main\n",
		"bin/x.go":         "not Go",
	}))
	require.NoError(t, err)
	var text []string
	for _, p := range problems {
		text = append(text, p.String())
	}
	require.Len(t, problems, 3, text)
	assert.Contains(t, text[0], "config/a.go:3: ")
	assert.Contains(t, text[1], "config/b.go:451: 451 lines")
	assert.Contains(t, text[2], "no doc.go")
}

func TestUnreadableSourceIsAnError(t *testing.T) {
	_, err := Check(tree(t, map[string]string{"config/a.go": "no package"}))
	require.Error(t, err)
}

func TestRulesPointDownwards(t *testing.T) {
	table := rules()
	known := map[string]bool{"*": true}
	for _, r := range table {
		known[r.part] = true
	}
	var visit func(part string, above []string)
	visit = func(part string, above []string) {
		require.NotContains(t, above, part, "a cycle in the map")
		for _, r := range table {
			if r.part != part {
				continue
			}
			for _, next := range r.may {
				require.True(t, known[next], "%s may import %s, which has no rule", part, next)
				if next != "*" {
					visit(next, append(above, part))
				}
			}
		}
	}
	for _, r := range table {
		visit(r.part, nil)
	}
}
