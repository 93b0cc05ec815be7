package netproxy

import (
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

// TestShortConnections: a client that opens and closes more connections than
// there are ports for legs, within the minute for which the kernel keeps the
// four-tuple of each, is served as by the application itself.
func TestShortConnections(t *testing.T) {
	for _, timestamps := range []string{"1", "0"} {
		set := func(ns int, name, value string) { setSysctl(t, ns, name, value) }
		r := newTCPRig(t, order.Auto, func(o *Options) {
			// What is left for legs are 1,023 ports of each client's own and 100 common ones.
			set(o.NetNS, "ip_local_port_range", "1024 65535")
			set(o.NetNS, "ip_local_reserved_ports", "2000,2002-2100")
			set(o.NetNS, "tcp_timestamps", timestamps)
		})
		set(r.client, "ip_local_port_range", "2000 65535")
		r.echoAll()
		for i := range 1500 {
			c, err := r.rig.dial(nstest.App4, proxiedPort)
			require.NoError(t, err, "connection %d", i)
			_, err = c.Write([]byte("x"))
			require.NoError(t, err, "connection %d", i)
			_, err = io.ReadFull(c, make([]byte, 1))
			require.NoError(t, err, "connection %d, timestamps %s", i, timestamps)
			require.NoError(t, c.Close())
		}
		require.EqualValues(t, 1500, r.proxy.Stats().Accepted)
	}
}

// TestNoPortForLegs: a namespace in which all ports are the application's is told
// of, with what to do.
func TestNoPortForLegs(t *testing.T) {
	ns := nstest.New(t)
	setSysctl(t, ns, "ip_local_port_range", "1024 65535")
	_, err := legPorts(ns)
	require.ErrorIs(t, err, tcprepair.ErrPortRange)
	require.ErrorContains(t, err, "net.ipv4.ip_local_reserved_ports=10000-32767")
	setSysctl(t, ns, "ip_local_port_range", "10000 61000")
	p, err := legPorts(ns)
	require.NoError(t, err)
	require.Equal(t, 65536-61001+10000-1024, p.Len())
}

func setSysctl(t *testing.T, ns int, name, value string) {
	t.Helper()
	nstest.In(t, ns, func() error { return os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0) })
}
