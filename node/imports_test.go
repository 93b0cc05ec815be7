package node

import (
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const testDropIn = "/etc/containerd/conf.d/crsc.toml"

func TestImportsAreAddedAndTakenAwayWithoutATrace(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"none":            {"version = 2\nroot = \"/x\"\n", []string{testDropIn}},
		"empty file":      {"", []string{testDropIn}},
		"no newline":      {"version = 3", []string{testDropIn}},
		"empty array":     {"version = 3\nimports = []\n", []string{testDropIn}},
		"one":             {"version = 3\nimports = ['/a/*.toml']\n[grpc]\n", []string{testDropIn, "/a/*.toml"}},
		"several lines":   {"imports = [ # why\n  \"/a\", # [b]\n  \"/c\",\n]\nversion = 4\n", []string{testDropIn, "/a", "/c"}},
		"quoted key":      {"version = 2\n\"imports\" = [\"/a\"]\n", []string{testDropIn, "/a"}},
		"in a comment":    {"# imports = [\"/b\"]\nversion = 2\n", []string{testDropIn}},
		"in a table":      {"version = 2\n[plugins.x]\nimports = [\"/b\"]\n", []string{testDropIn}},
		"in a string":     {"version = 2\nroot = '''\nimports = [\"/b\"]\n'''\n", []string{testDropIn}},
		"as a dotted key": {"version = 2\nimports2.imports = 1\n", []string{testDropIn}},
	} {
		t.Run(name, func(t *testing.T) {
			with, err := addImport([]byte(tc.text), testDropIn)
			require.NoError(t, err)
			var m mainConfig
			require.NoError(t, toml.Unmarshal(with, &m), "%s", with)
			assert.Equal(t, tc.want, m.Imports)
			assert.True(t, m.imported("/etc/containerd/config.toml", testDropIn))
			without, err := removeImport(with, testDropIn)
			require.NoError(t, err)
			assert.Equal(t, tc.text, string(without))
		})
	}
}

func TestImportsThatAreNoArrayAreRefused(t *testing.T) {
	_, err := addImport([]byte("imports = 'x'\n"), testDropIn)
	require.Error(t, err)
}

func TestForeignImportsStay(t *testing.T) {
	text := "imports = [\"/etc/containerd/conf.d/*.toml\"]\nversion = 3\n"
	out, err := removeImport([]byte(text), testDropIn)
	require.NoError(t, err)
	assert.Equal(t, text, string(out))
	m, err := parseMain([]byte(text))
	require.NoError(t, err)
	assert.True(t, m.imported("/etc/containerd/config.toml", testDropIn))
	assert.False(t, m.imported("/etc/containerd/config.toml", "/etc/other/crsc.toml"))
}

func TestRelativeImportsAreRelativeToTheFile(t *testing.T) {
	m := mainConfig{Imports: []string{"conf.d/*.toml"}}
	assert.True(t, m.imported("/etc/containerd/config.toml", testDropIn))
}

func TestUnknownVersionsAreRefused(t *testing.T) {
	for _, text := range []string{"", "version = 1\n", "version = 5\n"} {
		_, err := parseMain([]byte(text))
		require.ErrorContains(t, err, "containerd config migrate", text)
	}
}
