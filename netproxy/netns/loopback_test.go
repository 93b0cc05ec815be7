package netns_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
)

// TestConnectLoopback: where somebody's rules drop what goes over the loopback
// interface, nobody waits for as long as TCP would.
func TestConnectLoopback(t *testing.T) {
	ns := nstest.New(t)
	connect := func() (err error) {
		nstest.In(t, ns, func() error {
			l, lerr := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, lerr)
			defer unix.Close(l)
			require.NoError(t, unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
			require.NoError(t, unix.Listen(l, 1))
			to, lerr := unix.Getsockname(l)
			require.NoError(t, lerr)
			c, lerr := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, lerr)
			defer unix.Close(c)
			err = netns.ConnectLoopback(c, to)
			return nil
		})
		return err
	}
	require.NoError(t, connect())
	nstest.In(t, ns, func() error {
		out, err := exec.Command("nft", "table ip closed { chain in { type filter hook input priority 0; policy drop; }; }").CombinedOutput()
		require.NoError(t, err, "%s", out)
		return nil
	})
	require.ErrorIs(t, connect(), unix.ETIMEDOUT)
}
