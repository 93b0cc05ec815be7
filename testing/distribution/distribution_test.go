package distribution

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/testing/isolate"
)

const dropIn = "/etc/containerd/conf.d/crsc.toml"

// TestChecksums: everything in dist is listed, and is what the list says.
func TestChecksums(t *testing.T) {
	cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	cmd.Dir = filepath.Join(out, "dist")
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	list, err := os.ReadDir(cmd.Dir)
	require.NoError(t, err)
	for _, e := range list {
		if e.Name() != "SHA256SUMS" {
			assert.Contains(t, string(text), e.Name()+": OK")
		}
	}
}

// TestDebianPackage installs the package on a node and removes it again.
func TestDebianPackage(t *testing.T) {
	found, err := filepath.Glob(filepath.Join(out, "dist", "crsc_*.deb"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	main := writeMain(t)
	before := files(t)

	do(t, "dpkg", "--install", found[0])
	assert.Empty(t, do(t, "dpkg", "--verify", "crsc"), "files that are not as in the package")
	assert.Contains(t, do(t, "containerd-shim-crsc-v1", "-v"), "containerd-shim-crsc-v1")
	assert.Equal(t, "no container has crsc.io/checkpoint-restore\n", do(t, "crsc", "ps"))
	n, err := config.Load("/etc/crsc/config.toml")
	require.NoError(t, err)
	assert.Contains(t, do(t, n.CRIU, "--version"), "crsc")
	do(t, n.CRIU, "check")

	// As where an image is made: containerd does not run yet.
	do(t, "crsc-node", "install", "--programs=/usr/bin", "--containerd=/usr/local/bin/containerd")
	assert.Contains(t, do(t, "containerd", "config", "dump"), "runtime_path = '/usr/bin/containerd-shim-crsc-v1'")
	s := runServer(t, start(t))
	assert.Equal(t, "/usr/bin/containerd-shim-crsc-v1", s.shim())
	assert.Contains(t, do(t, "crsc", "ps"), "db")
	s.count(20)
	s.crash()
	s.count(20)

	// A newer package of the same: the container keeps its shim, and recovers.
	do(t, "dpkg", "--install", found[0])
	s.crash()
	s.count(20)

	text, err := try("dpkg", "--remove", "crsc")
	require.Error(t, err, "it is in use")
	assert.Contains(t, text, "1 shims run")
	s.crash()
	s.count(20)
	s.remove()

	do(t, "dpkg", "--remove", "crsc")
	assert.NoFileExists(t, dropIn)
	assert.FileExists(t, "/etc/crsc/config.toml", "settings stay until the package is purged")
	do(t, "dpkg", "--purge", "crsc")
	assert.Empty(t, changed(t, before), "traces")
	now, err := os.ReadFile(containerdConfig)
	require.NoError(t, err)
	assert.Equal(t, main, string(now))
}

// TestMakeInstall puts onto a node with a containerd that runs what `make
// install` puts into DESTDIR.
func TestMakeInstall(t *testing.T) {
	writeMain(t)
	d := start(t)
	before := files(t)
	do(t, "cp", "-a", filepath.Join(out, "stage")+"/.", "/")
	do(t, "install", filepath.Join(out, "dist", "criu"), "/usr/local/bin")
	for _, name := range []string{"containerd-shim-crsc-v1", "crsc", "crsc-node"} {
		do(t, "cmp", filepath.Join(out, "dist", name), filepath.Join("/usr/local/bin", name))
	}
	starts := d.Starts()
	do(t, "crsc-node", "install", "--programs=/usr/local/bin", "--socket="+isolate.Address, "--restart=signal")
	assert.Equal(t, starts+1, d.Starts(), "containerd was restarted, once")
	do(t, "crsc-node", "install", "--programs=/usr/local/bin", "--socket="+isolate.Address, "--restart=signal")
	assert.Equal(t, starts+1, d.Starts(), "nothing has changed since")
	assert.Contains(t, do(t, "containerd", "config", "dump"), "runtime_path = '/usr/local/bin/containerd-shim-crsc-v1'")
	n, err := config.Load("/etc/crsc/config.toml")
	require.NoError(t, err)
	assert.Equal(t, "/usr/local/bin/criu", n.CRIU)

	s := runServer(t, d)
	assert.Equal(t, "/usr/local/bin/containerd-shim-crsc-v1", s.shim())
	s.count(20)
	s.crash()
	s.count(20)
	_, err = try("crsc-node", "uninstall", "--programs=/usr/local/bin", "--socket="+isolate.Address, "--restart=signal")
	require.ErrorContains(t, err, "1 shims run")
	s.remove()
	do(t, "crsc-node", "uninstall", "--programs=/usr/local/bin", "--socket="+isolate.Address, "--restart=signal")
	assert.NoFileExists(t, dropIn)

	// What is not containerd's belongs to whoever has put it there.
	for _, name := range []string{"containerd-shim-crsc-v1", "crsc", "crsc-node", "criu"} {
		require.NoError(t, os.Remove(filepath.Join("/usr/local/bin", name)))
	}
	require.NoError(t, os.RemoveAll("/etc/crsc"))
	require.NoError(t, os.RemoveAll(stateDir))
	assert.Empty(t, changed(t, before), "traces")
}
