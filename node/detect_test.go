package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env"
)

// listenAt makes this program one that only listens at a socket, as the process
// that is found there; asK3s one that is containerd by its first argument alone.
const (
	listenAt = "CRSC_TEST_LISTEN"
	asK3s    = "k3s"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(listenAt); socket != "" {
		l, err := net.Listen("unix", socket)
		for err == nil {
			var c net.Conn
			if c, err = l.Accept(); err == nil {
				err = c.Close()
			}
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if exe, err := os.Executable(); err == nil && filepath.Base(exe) == asK3s {
		if os.Args[0] != "containerd" {
			fmt.Fprintln(os.Stderr, "k3s: no such flag")
			os.Exit(1)
		}
		err := syscall.Exec(filepath.Join(filepath.Dir(exe), "real"), os.Args, os.Environ())
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// listen starts a process that listens at a socket of the node, with a command
// line, and waits until it does.
func listen(t *testing.T, host, socket string, args ...string) *exec.Cmd {
	t.Helper()
	path := filepath.Join(host, socket)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, removeIfThere(path))
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Args = append([]string{"containerd"}, args...)
	cmd.Env = append(os.Environ(), listenAt+"="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it may have been waited for
	})
	require.Eventually(t, func() bool { return answers(path) }, time.Minute, 10*time.Millisecond, "nobody listens at %s", path)
	return cmd
}

// shortHost is a node's directory with a name that leaves room for those of
// sockets.
func shortHost(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "node")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	return dir
}

const plainSocket = "/run/containerd/containerd.sock"

func TestTheDistributionIsWhoseContainerdAnswers(t *testing.T) {
	type process struct{ socket, config string }
	k0s := process{"/run/k0s/containerd.sock", "--config=/etc/k0s/containerd.toml"}
	plain := process{plainSocket, ""}
	for name, tc := range map[string]struct {
		run      []process
		options  Options
		want     Distribution
		config   string
		conflict string
	}{
		"nobody":            {nil, Options{}, DistributionContainerd, "/etc/containerd/config.toml", ""},
		"containerd":        {[]process{plain}, Options{}, DistributionContainerd, "/etc/containerd/config.toml", ""},
		"k0s beside Docker": {[]process{plain, k0s}, Options{}, DistributionK0s, "/etc/k0s/containerd.toml", ""},
		"k3s": {
			[]process{{k3sSocket, "--config=/var/lib/rancher/k3s/agent/etc/containerd/config.toml"}},
			Options{}, DistributionK3s, "/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "",
		},
		"RKE2": {
			[]process{{k3sSocket, "--config=/var/lib/rancher/rke2/agent/etc/containerd/config.toml"}},
			Options{}, DistributionRKE2, "/var/lib/rancher/rke2/agent/etc/containerd/config.toml", "",
		},
		"k3s with a data directory": {
			[]process{{k3sSocket, "--config=/srv/data/agent/etc/containerd/config.toml"}},
			Options{}, DistributionK3s, "/srv/data/agent/etc/containerd/config.toml", "",
		},
		"microk8s": {
			[]process{{"/var/snap/microk8s/common/run/containerd.sock", "--config=/var/snap/microk8s/7661/args/containerd.toml"}},
			Options{}, DistributionMicroK8s, "/var/snap/microk8s/current/args/containerd.toml", "",
		},
		"two": {[]process{k0s, {k3sSocket, "--config=/var/lib/rancher/k3s/agent/etc/containerd/config.toml"}}, Options{}, "", "", "k3s and k0s"},
		"two, and it is said which": {
			[]process{k0s, {k3sSocket, ""}}, Options{Distribution: DistributionK0s}, DistributionK0s, "/etc/k0s/containerd.toml", "",
		},
		"a path of one's own": {[]process{k0s}, Options{Containerd: "/etc/mine.toml"}, DistributionContainerd, "/etc/mine.toml", ""},
		"an image":            {[]process{k0s}, Options{Daemon: "/usr/bin/containerd"}, DistributionContainerd, "/etc/containerd/config.toml", ""},
	} {
		t.Run(name, func(t *testing.T) {
			host := shortHost(t)
			for _, p := range tc.run {
				listen(t, host, p.socket, p.config)
			}
			tc.options.Host = host
			o, err := tc.options.defaultsAndValidate()
			if tc.conflict != "" {
				require.ErrorContains(t, err, tc.conflict)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, o.layout.name)
			assert.Equal(t, tc.config, o.Containerd)
		})
	}
}

// TestUninstallFindsWhatIsLeftBehind: of a distribution that does not run.
func TestUninstallFindsWhatIsLeftBehind(t *testing.T) {
	host := shortHost(t)
	write(t, host, "/var/lib/rancher/rke2/agent/etc/containerd/config.toml", rke2(k3sV2))
	write(t, host, "/var/lib/rancher/rke2/agent/etc/containerd/config.toml.d/crsc.toml", "")
	o, err := Options{Host: host}.defaultsAndValidate()
	require.NoError(t, err)
	assert.Equal(t, "/var/lib/rancher/rke2/agent/etc/containerd/config.toml.d/crsc.toml", o.dropIn())
	require.ErrorContains(t, onSystemd(t, host, Options{Host: host}), "does not answer")
	require.NoError(t, Uninstall(context.Background(), Options{Host: host, Restart: RestartNone}))
	assert.NoFileExists(t, filepath.Join(host, o.dropIn()))
}

// onSystemd uninstalls from a node that runs systemd.
func onSystemd(t *testing.T, host string, o Options) error {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(host, "run/systemd/system"), 0o755))
	return Uninstall(context.Background(), o)
}

// TestContainerdIsAskedByTheNameThatItHas: k3s is containerd only when called so.
func TestContainerdIsAskedByTheNameThatItHas(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	require.NoError(t, err)
	k3s := filepath.Join(dir, asK3s)
	_, err = copyProgram(exe, k3s)
	require.NoError(t, err)
	e, err := env.Locate("")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(filepath.Join(e.ToolsDir, "containerd"), filepath.Join(dir, "real")))
	write(t, dir, "config.toml", k3sV3)
	config := filepath.Join(dir, "config.toml")

	_, err = daemon{exe: k3s}.effective(context.Background(), "/", config)
	require.ErrorContains(t, err, "k3s: no such flag")
	has, err := daemon{exe: k3s, args: []string{"containerd", "-c", config}}.effective(context.Background(), "/", config)
	require.NoError(t, err)
	assert.Equal(t, "/run/k3s/containerd", has["state"])
}
