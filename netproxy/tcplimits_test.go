package netproxy

import (
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// TestMemoryIsBounded: a hundred clients that do not read, and as many servers
// that do not, leave the proxy with little more than its limit.
func TestMemoryIsBounded(t *testing.T) {
	const limit, pairs = 2 << 20, 100
	r := newTCPRig(t, order.Auto, func(o *Options) { o.MaxMemory = limit })
	var ends []*net.TCPConn
	for range pairs {
		c, s := r.pair(nstest.App4, proxiedPort)
		ends = append(ends, c, s)
	}
	var wg sync.WaitGroup
	for _, e := range ends {
		wg.Go(func() { _, _ = e.Write(make([]byte, 32<<20)) })
	}
	require.Eventually(t, func() bool { return r.proxy.Stats().Held >= limit }, soon, 10*time.Millisecond)
	most := int64(0)
	for range 50 {
		most = max(most, r.proxy.Stats().Held)
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("%d KiB held at most", most>>10)
	// What one round brings in may come on top, and the small shares.
	require.Less(t, most, int64(limit+2*arenaSize+2*pairs*smallShare))
	c, s := r.pair(nstest.App4, proxiedPort)
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, s.SetReadDeadline(time.Now().Add(soon)))
	_, err = io.ReadFull(s, make([]byte, 1))
	require.NoError(t, err, "others are served")
	for _, e := range ends {
		e.Close()
	}
	wg.Wait()
	assert.Eventually(t, func() bool { return r.proxy.Stats().Held == 0 }, soon, 10*time.Millisecond)
}

// TestForgottenByTheApplication: a client that neither speaks nor closes after
// the application has closed is forgotten, as the application's kernel would.
func TestForgottenByTheApplication(t *testing.T) {
	r := newTCPRig(t, order.Auto, func(o *Options) { o.orphanInterval = 100 * time.Millisecond })
	nstest.In(t, r.app, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/tcp_fin_timeout", []byte("1"), 0)
	})
	for _, port := range []uint16{directPort, proxiedPort} {
		c, s := r.pair(nstest.App4, port)
		half, stays := r.pair(nstest.App4, port)
		require.NoError(t, stays.CloseWrite())
		require.NoError(t, s.Close())
		require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		time.Sleep(2 * time.Second)
		if port == proxiedPort {
			require.Eventually(t, func() bool { return r.proxy.Stats().Connections == 1 }, soon, 10*time.Millisecond)
			time.Sleep(500 * time.Millisecond)
			require.EqualValues(t, 1, r.proxy.Stats().Connections, "but one that the application has half closed lives on")
		}
		_, err = c.Write([]byte("x"))
		require.NoError(t, err, "the first write finds nobody")
		require.Eventually(t, func() bool { _, err = c.Write([]byte("x")); return err != nil }, soon, 10*time.Millisecond)
		_, err = half.Write([]byte("y"))
		require.NoError(t, err)
		require.NoError(t, stays.SetDeadline(time.Now().Add(soon)))
		_, err = io.ReadFull(stays, make([]byte, 1))
		require.NoError(t, err)
	}
}
