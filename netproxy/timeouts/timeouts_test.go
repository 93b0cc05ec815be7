package timeouts

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
)

// TestRead: what a socket was told is read by its addresses, and of no other
// socket.
func TestRead(t *testing.T) {
	ns := nstest.New(t)
	var r *Reader
	nstest.In(t, ns, func() (err error) { r, err = Open(nil); return err })
	t.Cleanup(func() { r.Close() })
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		var l net.Listener
		var c net.Conn
		nstest.In(t, ns, func() (err error) {
			if l, err = net.Listen("tcp", at); err != nil {
				return err
			}
			c, err = net.Dial("tcp", l.Addr().String())
			return err
		})
		defer l.Close()
		defer c.Close()
		s, err := l.Accept()
		require.NoError(t, err)
		defer s.Close()
		require.NoError(t, s.(*net.TCPConn).SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: 7 * time.Second, Interval: 3 * time.Second, Count: 4,
		}))
		require.NoError(t, c.(*net.TCPConn).SetKeepAlive(false))
		local, remote := netip.MustParseAddrPort(s.LocalAddr().String()), netip.MustParseAddrPort(s.RemoteAddr().String())
		nstest.In(t, ns, func() error {
			got, err := r.Read(local, remote)
			require.NoError(t, err)
			require.Equal(t, Timeouts{KeepAlive: true, Idle: 7 * time.Second, Interval: 3 * time.Second, Count: 4}, got)
			got, err = r.Read(remote, local)
			require.NoError(t, err)
			require.False(t, got.KeepAlive)
			_, err = r.Read(local, netip.AddrPortFrom(remote.Addr(), 1))
			require.ErrorIs(t, err, ErrNotFound, "there is only the listener")
			return nil
		})
		_, err = r.Read(local, remote)
		require.ErrorIs(t, err, ErrNotFound, "it is in another namespace")
	}
}

func BenchmarkRead(b *testing.B) {
	ns := nstest.New(b)
	nstest.In(b, ns, func() error {
		r, err := Open(nil)
		if err != nil {
			return err
		}
		defer r.Close()
		t, err := newTrial()
		defer t.close()
		if err != nil {
			return err
		}
		for b.Loop() {
			if _, err := r.Read(t.local, t.remote); err != nil {
				return err
			}
		}
		return nil
	})
}
