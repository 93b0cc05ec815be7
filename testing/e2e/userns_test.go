package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/load"
)

// TestUserNamespace: crashes of a container with users of its own are hidden like
// others, with the connections in the network namespace that belongs to them. The
// files of the image belong to these users, or a mount makes them theirs.
func TestUserNamespace(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{"owned": nil, "mapped": {"--remap-labels"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testUserNamespace(t, flags)
		})
	}
}

func testUserNamespace(t *testing.T, flags []string) {
	c := newContainer(t)
	const users = "0:200000:65536"
	require.NoError(t, c.e.Run(t.Context(), env.Container{
		ID: c.id, Image: ociimage.Ref("redis"), Flags: append(flags, "--uidmap", users, "--gidmap", users),
		Annotations: protected("checkpoint-interval", "300ms", "intercept-loopback", "true"),
		Args:        []string{"redis-server", "--appendonly", "yes", "--dir", "/data"},
	}))
	require.True(t, c.status().Protected, c.status().Reason)
	require.Eventually(t, func() bool { return strings.Contains(c.log(), "Ready to accept connections") }, patience, 10*time.Millisecond)
	// The pinned one: the init's own ends with it.
	netns := filepath.Join(c.stateDir(), "pins/ns-net")
	l := c.drive(load.Options{
		Connections: 5, Rate: 300, Target: netip.AddrPortFrom(netip.IPv6Loopback(), redisPort), Netns: netns,
	})
	c.awaitCheckpoint()
	for range 3 {
		time.Sleep(200 * time.Millisecond) // for something to replay
		require.Zero(t, c.crash().Differing)
		users, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", c.initPid()))
		require.NoError(t, err)
		require.Equal(t, []string{"0", "200000", "65536"}, strings.Fields(string(users)))
	}
	c.finish(l)
	require.Equal(t, "0\n", c.ctr("task", "exec", "--exec-id", "x", c.id, "id", "-u"))
}
