package netproxy

import (
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
)

// dialFrom connects to the Redis from a port of the client's choice.
func (r *rig) dialFrom(port int) *redisConn {
	r.t.Helper()
	var c net.Conn
	require.NoError(r.t, netns.Do(r.client, func() (err error) {
		d := net.Dialer{Timeout: soon, LocalAddr: &net.TCPAddr{IP: nstest.Client4.AsSlice(), Port: port}}
		c, err = d.Dial("tcp", fmt.Sprintf("%s:6379", nstest.App4))
		return err
	}), "from port %d", port)
	r.t.Cleanup(func() { c.Close() })
	return newRedisConn(c)
}

// TestClientsOfAnyPort: whatever port a client has, behind address translation
// or as root, it does not meet a leg of another.
func TestClientsOfAnyPort(t *testing.T) {
	r := newRig(t, order.Auto)
	r.start()
	r.mustDial(nstest.App4)
	n := int64(0)
	check := func(c *redisConn) {
		t.Helper()
		n++
		got, err := c.incr("n")
		require.NoError(t, err)
		require.Equal(t, n, got)
	}
	for port := 10000; port < 10040; port++ {
		check(r.dialFrom(port))
	}
	// Privileged clients have ports of the legs' own kind. These come before the
	// legs that would have had them.
	for port := 600; port < 620; port++ {
		check(r.dialFrom(port))
	}
	for range 120 {
		check(r.mustDial(nstest.App4))
	}
}

// TestManyOfOneClient: more connections of one client than it has legs of its
// own.
func TestManyOfOneClient(t *testing.T) {
	r := newRig(t, order.Auto)
	r.start()
	for i := range 1200 {
		c := r.mustDial(nstest.App4)
		got, err := c.incr("n")
		require.NoError(t, err)
		require.EqualValues(t, i+1, got)
	}
	r.kill()
	r.recover()
	got, err := r.mustDial(nstest.App4).incr("n")
	require.NoError(t, err)
	require.EqualValues(t, 1201, got)
}
