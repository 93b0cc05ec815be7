package node

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheUnitIsTheDistributions(t *testing.T) {
	for name, tc := range map[string]struct{ cgroup, want string }{
		"k3s":                  {"0::/system.slice/k3s-agent.service\n", "k3s-agent.service"},
		"from another cgroup":  {"0::/../../../system.slice/rke2-server.service\n", "rke2-server.service"},
		"version 1":            {"3:cpu:/system.slice\n1:name=systemd:/system.slice/k3s.service\n0::/\n", "k3s.service"},
		"in a shell":           {"0::/user.slice/user-0.slice/session-3.scope\n", ""},
		"in a user's service":  {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n", ""},
		"without systemd":      {"0::/\n", ""},
		"in a part of its own": {"0::/system.slice/k3s.service/containerd\n", "k3s.service"},
	} {
		assert.Equal(t, tc.want, unitIn(tc.cgroup, []string{"k3s", "rke2"}), name)
	}
}

func TestK3sIsNotEndedForGood(t *testing.T) {
	host := shortHost(t)
	listen(t, host, k3sSocket, "-c", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml")
	ready := func(o Options) error {
		o.Host = host
		o, err := o.defaultsAndValidate()
		require.NoError(t, err)
		require.Equal(t, DistributionK3s, o.layout.name)
		_, err = o.ready()
		return err
	}
	require.ErrorContains(t, ready(Options{}), "--restart=none")
	require.NoError(t, ready(Options{Restart: RestartNone}))
	require.NoError(t, ready(Options{Restart: RestartSignal}))
	// This process is in no unit of k3s.
	require.ErrorContains(t, ready(Options{Restart: RestartSystemd}), "--service")
	require.NoError(t, ready(Options{Restart: RestartSystemd, Service: "k3s-mine.service"}))
}

// TestK0sRestartsContainerdItself: whoever watches the drop-ins is waited for;
// where nobody does, containerd is ended and started again by its supervisor.
func TestK0sRestartsContainerdItself(t *testing.T) {
	const socket = "/run/k0s/containerd.sock"
	for name, tc := range map[string]struct {
		watched  bool
		patience time.Duration
	}{
		"watched":   {true, 4 * time.Minute},
		"unwatched": {false, 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			host := shortHost(t)
			first := listen(t, host, socket, "--config=/etc/k0s/containerd.toml")
			o, err := Options{Host: host, Patience: tc.patience, Log: t.Logf}.defaultsAndValidate()
			require.NoError(t, err)
			old, err := o.ready()
			require.NoError(t, err)
			require.Equal(t, first.Process.Pid, old.pid)
			if tc.watched {
				require.NoError(t, first.Process.Kill())
			}
			done := make(chan error, 1)
			go func() { done <- o.restart(context.Background(), old) }()
			_ = first.Wait() // killed
			second := listen(t, host, socket)
			require.NoError(t, <-done)
			is, err := o.daemon()
			require.NoError(t, err)
			assert.Equal(t, second.Process.Pid, is.pid)
		})
	}
}
