package recovery

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/oci"
)

func left(t *testing.T, change func(*inheritance, *specs.Spec)) *inheritance {
	t.Helper()
	spec := &specs.Spec{
		Process:     &specs.Process{Args: []string{"app"}, Cwd: "/", Env: []string{"A=1", "B=2", "DB_SERVICE_HOST=10.0.0.1", "DB_PORT_5432_TCP_ADDR=10.0.0.1"}},
		Annotations: map[string]string{"crsc.io/checkpoint-restore": "true", "io.kubernetes.cri.sandbox-id": "x"},
	}
	l := &inheritance{Version: inheritanceVersion, Time: time.Now(), ImageDigest: "sha256:1", Arch: "amd64", Kernel: "6.1", CRIU: "4.2"}
	if change != nil {
		change(l, spec)
	}
	var err error
	l.Spec, err = json.Marshal(spec)
	require.NoError(t, err)
	return l
}

func TestASuccessorOfTheSameTemplateFits(t *testing.T) {
	self := left(t, func(_ *inheritance, s *specs.Spec) {
		s.Annotations["io.kubernetes.cri.sandbox-id"] = "y"
		s.Process.Env = []string{"B=2", "A=1", "DB_SERVICE_HOST=10.0.0.9", "NEW_SERVICE_PORT_HTTP=80", "NEW_PORT=tcp://10.0.0.3:80"}
	})
	require.NoError(t, left(t, nil).fits(self))
}

func TestAnotherTemplateDoesNotFitAndNoValueIsTold(t *testing.T) {
	for what, change := range map[string]func(*inheritance, *specs.Spec){
		"another command":                    func(_ *inheritance, s *specs.Spec) { s.Process.Args = []string{"app", "secret"} },
		"another working directory":          func(_ *inheritance, s *specs.Spec) { s.Process.Cwd = "/secret" },
		"another environment":                func(_ *inheritance, s *specs.Spec) { s.Process.Env[0] = "A=secret" },
		"another set of crsc.io annotations": func(_ *inheritance, s *specs.Spec) { s.Annotations["crsc.io/order"] = "secret" },
		"another user":                       func(_ *inheritance, s *specs.Spec) { s.Process.User.UID = 5 },
		"the image was":                      func(l *inheritance, _ *specs.Spec) { l.ImageDigest = "sha256:2" },
		"it was made on":                     func(l *inheritance, _ *specs.Spec) { l.Kernel = "6.2" },
		"a container without":                func(_ *inheritance, s *specs.Spec) { s.Process = nil },
	} {
		err := left(t, nil).fits(left(t, change))
		require.ErrorIs(t, err, oci.ErrIncompatible, what)
		assert.ErrorContains(t, err, what)
		assert.NotContains(t, err.Error(), "secret")
	}
	old := left(t, func(l *inheritance, _ *specs.Spec) { l.Time = time.Now().Add(-inheritanceLimit - time.Minute) })
	require.ErrorContains(t, old.fits(left(t, nil)), "older than")
	other := left(t, func(l *inheritance, _ *specs.Spec) { l.Version++ })
	require.ErrorContains(t, other.fits(left(t, nil)), "version")
	unknown := left(t, func(l *inheritance, _ *specs.Spec) { l.ImageDigest = "" })
	require.ErrorContains(t, unknown.fits(unknown), "image")
}

func TestWhatNobodyTookIsRemovedAfterADay(t *testing.T) {
	dir := t.TempDir()
	for name, age := range map[string]time.Duration{"new": time.Hour, "old": inheritanceLimit + time.Hour} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Join(path, "images"), 0o700))
		at := time.Now().Add(-age)
		require.NoError(t, os.Chtimes(path, at, at))
	}
	require.NoError(t, removeStale(dir))
	assert.DirExists(t, filepath.Join(dir, "new"))
	assert.NoDirExists(t, filepath.Join(dir, "old"))
}
