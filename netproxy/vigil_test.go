package netproxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/timeouts"
)

// TestVanishedPeers: an application that has told its kernel how long to wait for a
// silent peer learns of one that has vanished after that time, as without us,
// whoever of the two has connected; one that has not goes on waiting.
func TestVanishedPeers(t *testing.T) {
	r := newTCPRig(t, order.Auto, func(o *Options) {
		o.Egress, o.ExcludeServerPorts = true, []uint16{directPort}
		o.vigilInterval = 50 * time.Millisecond
	})
	r.dead.Store(uint32(Alive))
	probing := func(c *net.TCPConn) error {
		return c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 1})
	}
	hasty := func(c *net.TCPConn) error {
		if err := c.SetKeepAlive(false); err != nil {
			return err
		}
		return onFD(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_USER_TIMEOUT, 1000) })
	}
	patient := func(c *net.TCPConn) error { return c.SetKeepAlive(false) }
	var learn, wait []*net.TCPConn
	for _, port := range []uint16{directPort, proxiedPort} {
		for _, addr := range []netip.Addr{nstest.App4, nstest.App6} {
			_, probes := r.pair(addr, port)
			require.NoError(t, probing(probes))
			_, writes := r.pair(addr, port)
			require.NoError(t, hasty(writes))
			_, waits := r.pair(addr, port)
			require.NoError(t, patient(waits))
			learn, wait = append(learn, probes, writes), append(wait, waits)
		}
		l := r.listener(r.client, int(port))
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
			}
		}()
		for i, set := range []func(*net.TCPConn) error{probing, hasty, patient} {
			c := r.connect(netip.AddrPortFrom(nstest.Client4, port))
			require.NoError(t, set(c))
			if i == 2 {
				wait = append(wait, c)
			} else {
				learn = append(learn, c)
			}
		}
	}
	require.EqualValues(t, 6, r.proxy.Stats().Accepted)
	require.EqualValues(t, 3, r.proxy.Stats().Opened)
	require.Eventually(t, func() bool { return r.impatient() == 6 }, soon, 10*time.Millisecond)
	link := nstest.Handle(t, r.client)
	eth, err := link.LinkByName("eth0")
	require.NoError(t, err)
	require.NoError(t, link.LinkSetDown(eth))
	var wg sync.WaitGroup
	for i, c := range learn {
		wg.Go(func() {
			_ = c.SetDeadline(time.Now().Add(soon))
			if i%2 == 1 {
				_, _ = c.Write([]byte("hello?"))
			}
			_, err := io.ReadFull(c, make([]byte, 1))
			if i >= len(learn)/2 && errors.Is(err, syscall.ECONNRESET) {
				return // it is the proxy's kernel that has found out
			}
			assert.ErrorIs(t, err, syscall.ETIMEDOUT, "%d: %v", i, c.LocalAddr())
		})
	}
	wg.Wait()
	for i, c := range wait {
		_ = c.SetDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, i)
	}
}

// TestTimeoutsOfANamespace: the defaults of a namespace may be longer than a socket
// can be told to wait.
func TestTimeoutsOfANamespace(t *testing.T) {
	r := newTCPRig(t, order.Auto, func(*Options) {})
	r.dead.Store(uint32(Alive))
	r.pair(nstest.App4, proxiedPort)
	require.NoError(t, r.proxy.do(t.Context(), "set", func() error {
		r.proxy.vigil.usual = timeouts.Timeouts{Idle: 24 * time.Hour, Interval: 0, Count: 1000}
		for _, c := range r.proxy.conns {
			if err := r.proxy.setTimeouts(c, timeouts.Timeouts{KeepAlive: true, User: 7 * time.Second}); err != nil {
				return err
			}
			for opt, want := range map[int]int{
				unix.TCP_KEEPIDLE: 32767, unix.TCP_KEEPINTVL: 1, unix.TCP_KEEPCNT: 127, unix.TCP_USER_TIMEOUT: 7000,
			} {
				got, err := unix.GetsockoptInt(c.clientFD, unix.SOL_TCP, opt)
				require.NoError(t, err)
				require.Equal(t, want, got, opt)
			}
		}
		require.Len(t, r.proxy.conns, 1)
		return nil
	}))
}

// impatient counts the connections on which the proxy has learned of timeouts.
func (r *tcpRig) impatient() (n int) {
	r.t.Helper()
	require.NoError(r.t, r.proxy.do(r.t.Context(), "count", func() error {
		for _, c := range r.proxy.conns {
			if c.timeouts.KeepAlive && c.timeouts.Idle == time.Second || c.timeouts.User > 0 {
				n++
			}
		}
		return nil
	}))
	return n
}

// connect connects as the application.
func (r *tcpRig) connect(to netip.AddrPort) *net.TCPConn {
	r.t.Helper()
	var c net.Conn
	require.NoError(r.t, netns.Do(r.app, func() (err error) {
		c, err = (&net.Dialer{Timeout: soon}).DialContext(r.t.Context(), "tcp", to.String())
		return err
	}))
	r.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}
