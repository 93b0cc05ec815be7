package cgroups

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const hybrid = `9:name=systemd:/
8:pids:/ns/c
3:cpu,cpuacct:/ns/c
0::/ns/c
broken
`

func TestDirectories(t *testing.T) {
	root := t.TempDir()
	group := func(path string) string {
		dir := filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), nil, 0o600))
		return dir
	}
	g := Parse(root, hybrid)
	assert.Equal(t, filepath.Join(root, "pids/ns/c"), g.V1("pids"))
	assert.Equal(t, filepath.Join(root, "cpuacct/ns/c"), g.V1("cpuacct"))
	assert.Empty(t, g.V1("memory"))
	assert.Empty(t, g.V2(), "not mounted")
	beside := group("unified/ns/c")
	assert.Equal(t, beside, g.V2())
	alone := group("ns/c")
	assert.Equal(t, alone, Parse(root, "0::/ns/c\n").V2())
	assert.Empty(t, Parse(root, "0::/\n").V2(), "the root is nobody's own")
	assert.Empty(t, Paths{}.V1("pids")+Paths{}.V2())
}

// TestOwn: what the kernel says of this process is found.
func TestOwn(t *testing.T) {
	g, err := Of(os.Getpid())
	require.NoError(t, err)
	if !Unified() {
		assert.FileExists(t, filepath.Join(g.V1("pids"), "cgroup.procs"))
	}
	_, err = Of(1 << 30)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
