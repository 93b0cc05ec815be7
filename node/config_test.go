package node

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env"
)

// containerd returns the program of a version of the compatibility matrix, or
// the one that most tests run against.
func containerd(t *testing.T, version string) daemon {
	t.Helper()
	e, err := env.Locate("")
	require.NoError(t, err)
	if version == "" {
		return daemon{exe: filepath.Join(e.ToolsDir, "containerd")}
	}
	name := "containerd-" + version
	out, err := exec.Command(filepath.Join(e.Root, "testing/env/install"), "matrix", name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return daemon{exe: filepath.Join(env.CacheDir(), "matrix", name, "containerd")}
}

// administrators' files: settings in the sections that ours is added to, for
// each version of the format.
var mains = map[string]string{
	"2": `version = 2
root = "/mnt/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.example/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      pod_annotations = ["example.org/*"]
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.other]
      runtime_type = "io.containerd.other.v1"
`,
	"3": `# ours
imports = ["/nowhere/*.toml"] # none yet
version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "registry.example/pause:1"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  pod_annotations = ["example.org/*"]
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    SystemdCgroup = true
`,
	"4": `version = 4
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  pod_annotations = ["example.org/*"]
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    SystemdCgroup = true
`,
}

func nodeOptions(t *testing.T, main string) Options {
	t.Helper()
	dir := t.TempDir()
	o, err := Options{Containerd: filepath.Join(dir, "config.toml"), Log: t.Logf}.defaultsAndValidate()
	require.NoError(t, err)
	if main != "" {
		require.NoError(t, os.WriteFile(o.Containerd, []byte(main), 0o600))
	}
	return o
}

func TestContainerdGetsOurRuntimeAndKeepsAllElse(t *testing.T) {
	for _, tc := range []struct{ daemon, config string }{
		{"v2.0.14", "2"}, {"v2.0.14", "3"}, {"", "2"}, {"", "3"}, {"v2.4.2", "3"}, {"v2.4.2", "4"},
	} {
		t.Run(tc.daemon+" version "+tc.config, func(t *testing.T) {
			d, o, ctx := containerd(t, tc.daemon), nodeOptions(t, mains[tc.config]), context.Background()
			before, err := d.effective(ctx, "/", o.Containerd)
			require.NoError(t, err)
			changed, err := o.configureFor(ctx, d)
			require.NoError(t, err)
			require.True(t, changed)
			after, err := d.effective(ctx, "/", o.Containerd)
			require.NoError(t, err)
			assert.Empty(t, lost(before, after, ""))
			var ours table
			for _, v := range []int{2, 3} {
				if r := sub(after, "plugins", runtimePlugin(v), "containerd", "runtimes", handler); len(r) > 0 {
					ours = r
				}
			}
			assert.Equal(t, "io.containerd.runc.v2", ours["runtime_type"])
			assert.Equal(t, "/opt/crsc/bin/containerd-shim-crsc-v1", ours["runtime_path"])
			assert.Equal(t, []any{"example.org/*", "crsc.io/*"}, ours["pod_annotations"])
			assert.Equal(t, []any{"crsc.io/*"}, ours["container_annotations"])
			assert.Equal(t, true, sub(ours, "options")["SystemdCgroup"], "the cgroup driver is the node's")

			again, err := o.configureFor(ctx, d)
			require.NoError(t, err)
			assert.False(t, again, "the second time there is nothing to do")

			changed, err = o.unconfigure()
			require.NoError(t, err)
			assert.True(t, changed)
			text, err := os.ReadFile(o.Containerd)
			require.NoError(t, err)
			assert.Equal(t, mains[tc.config], string(text))
			assert.NoFileExists(t, o.dropIn())
			changed, err = o.unconfigure()
			require.NoError(t, err)
			assert.False(t, changed)
		})
	}
}

func TestANodeWithoutConfigurationGetsOneAndLosesIt(t *testing.T) {
	d, o := containerd(t, ""), nodeOptions(t, "")
	changed, err := o.configureFor(context.Background(), d)
	require.NoError(t, err)
	require.True(t, changed)
	changed, err = o.unconfigure()
	require.NoError(t, err)
	require.True(t, changed)
	assert.NoFileExists(t, o.Containerd)
}

func TestWhatCannotBeDoneSafelyIsUndone(t *testing.T) {
	for name, tc := range map[string]struct{ main, want string }{
		"not TOML":         {"version = \n", "config dump"},
		"version 1":        {"version = 1\n", "containerd config migrate"},
		"no runc":          {strings.Replace(mains["3"], `"io.containerd.runc.v2"`, `"io.containerd.other.v1"`, 1), "can't be taken as a model"},
		"imports no array": {"version = 3\nimports = 'x'\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := nodeOptions(t, tc.main)
			_, err := o.configureFor(context.Background(), containerd(t, ""))
			require.ErrorIs(t, err, ErrConfig)
			require.ErrorContains(t, err, tc.want)
			text, err := os.ReadFile(o.Containerd)
			require.NoError(t, err)
			assert.Equal(t, tc.main, string(text))
			assert.NoFileExists(t, o.dropIn())
		})
	}
}

func TestALossIsNamed(t *testing.T) {
	before := table{"a": table{"b": int64(1), "c": []any{"x"}}, "imports": []any{"y"}}
	assert.Empty(t, lost(before, table{"a": table{"b": int64(1), "c": []any{"x"}, "d": true}}, ""))
	assert.Equal(t, "/a/b was 1 and would be <nil>", lost(before, table{"a": table{"c": []any{"x"}}}, ""))
	assert.NotEmpty(t, lost(before, table{"a": table{"b": int64(1), "c": []any{"z"}}}, ""))
}

func TestPathsAreAbsolute(t *testing.T) {
	for _, o := range []Options{{Host: "host"}, {Prefix: "/opt/../etc"}, {Prefix: "/usr/local"}, {Containerd: "config.toml"}, {Restart: "maybe"}} {
		_, err := o.defaultsAndValidate()
		require.Error(t, err, "%+v", o)
	}
}
