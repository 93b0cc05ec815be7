package netproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
)

// echoAll answers on every connection that the rig accepts.
func (r *tcpRig) echoAll() {
	done := make(chan struct{})
	r.t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case c := <-r.accepted:
				go func() {
					defer c.Close()
					_, _ = io.Copy(c, c)
				}()
			case <-done:
				return
			}
		}
	}()
}

// echoes sends much and little and wants it back.
func echoes(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(2 * soon)); err != nil {
		return err
	}
	for _, data := range [][]byte{[]byte("x"), blob(300_000)} {
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(data)
			sent <- err
		}()
		back := make([]byte, len(data))
		if _, err := io.ReadFull(c, back); err != nil {
			return err
		}
		if err := <-sent; err != nil {
			return err
		}
		if string(back) != string(data) {
			return errors.New("it came back changed")
		}
	}
	return nil
}

// dialWith connects as d does, from the client's namespace.
func (r *tcpRig) dialWith(d *net.Dialer, addr netip.Addr, port uint16) *net.TCPConn {
	r.t.Helper()
	var c net.Conn
	require.NoError(r.t, netns.Do(r.client, func() (err error) {
		c, err = d.DialContext(r.t.Context(), "tcp", netip.AddrPortFrom(addr, port).String())
		return err
	}))
	r.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// TestKindsOfClients: what a client would like to do beyond TCP is declined, as by
// a server that can't either, and it is served.
func TestKindsOfClients(t *testing.T) {
	r := newTCPRig(t, order.Auto, nil)
	r.echoAll()
	several := &net.Dialer{Timeout: soon}
	several.SetMultipathTCP(true)
	early := &net.Dialer{Timeout: soon, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
		})
		return errors.Join(err, cerr)
	}}
	for what, d := range map[string]*net.Dialer{"MPTCP": several, "TCP Fast Open": early} {
		for _, addr := range []netip.Addr{nstest.App4, nstest.App6} {
			for _, port := range []uint16{directPort, proxiedPort} {
				c := r.dialWith(d, addr, port)
				require.NoError(t, echoes(c), "%s to %s, port %d", what, addr, port)
				multi, err := c.MultipathTCP()
				require.NoError(t, err)
				require.False(t, multi)
			}
		}
	}
}

// TestSegmentSizes: clients are told the sizes that fit their way, not those of
// the loopback interface.
func TestSegmentSizes(t *testing.T) {
	r := newTCPRig(t, order.Auto, nil)
	r.echoAll()
	const mtu = 1280
	for _, ns := range []int{r.app, r.client} {
		h := nstest.Handle(t, ns)
		link, err := h.LinkByName("eth0")
		require.NoError(t, err)
		require.NoError(t, h.LinkSetMTU(link, mtu))
	}
	for addr, most := range map[netip.Addr]uint32{nstest.App4: mtu - 40, nstest.App6: mtu - 60} {
		var sizes [2]uint32
		for i, port := range []uint16{directPort, proxiedPort} {
			c := r.dialWith(&net.Dialer{Timeout: soon}, addr, port)
			require.NoError(t, echoes(c))
			require.NoError(t, onFD(c, func(fd int) error {
				info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
				if err == nil {
					sizes[i] = info.Snd_mss
					require.LessOrEqual(t, info.Rcv_mss, most, "what came was larger")
				}
				return err
			}))
		}
		require.Equal(t, sizes[0], sizes[1], addr)
		require.LessOrEqual(t, sizes[1], most)
	}
}

// listenFD makes a listener in the application's namespace with options and a
// backlog of its own.
func (r *tcpRig) listenFD(port, backlog int, options ...int) (fd int) {
	r.t.Helper()
	require.NoError(r.t, netns.Do(r.app, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		for _, o := range options {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, 1); err != nil {
				return err
			}
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
			return err
		}
		return unix.Listen(fd, backlog)
	}))
	return fd
}

// TestFullBacklog: clients that come faster than a server with a backlog of one
// accepts are all served in the end.
func TestFullBacklog(t *testing.T) {
	r := newTCPRig(t, order.Auto, nil)
	const port, clients = 90, 12
	fd := r.listenFD(port, 1)
	go func() {
		for {
			s, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
			b := make([]byte, 16)
			n, _ := unix.Read(s, b)
			_, _ = unix.Write(s, b[:max(n, 0)])
			_ = unix.Close(s)
		}
	}()
	defer func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR); unix.Close(fd) }()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c, err := r.rig.dial(nstest.App4, port)
			if err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(2 * soon))
			fmt.Fprintf(c, "%d", i)
			if got, err := io.ReadAll(c); err != nil || string(got) != fmt.Sprint(i) {
				t.Errorf("client %d was told %q, %v", i, got, err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, clients, r.proxy.Stats().Accepted)
}

// TestListenersComeAndGo: a server that opens its listener anew, beside the old one
// or after it, is found again; in between clients are refused.
func TestListenersComeAndGo(t *testing.T) {
	r := newTCPRig(t, order.Auto, nil)
	const port = 90
	ask := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		var c net.Conn
		err := netns.Do(r.client, func() (err error) {
			c, err = (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(nstest.App4, port).String())
			return err
		})
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(soon))
		_, err = io.ReadFull(c, make([]byte, 2))
		return err
	}
	serve := func(fd int) (stop func()) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				s, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
				if err != nil {
					return
				}
				_, _ = unix.Write(s, []byte("ok"))
				_ = unix.Close(s)
			}
		}()
		return func() {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
			<-done
			_ = unix.Close(fd)
		}
	}
	r.dead.Store(uint32(Alive))
	old := serve(r.listenFD(port, 10, unix.SO_REUSEADDR, unix.SO_REUSEPORT))
	require.NoError(t, ask())
	second := serve(r.listenFD(port, 10, unix.SO_REUSEADDR, unix.SO_REUSEPORT))
	old() // as a server that is reloaded
	for range 5 {
		require.NoError(t, ask())
	}
	second()
	require.Eventually(t, func() bool { return errors.Is(ask(), syscall.ECONNREFUSED) }, soon, 10*time.Millisecond,
		"nobody listens")
	third := serve(r.listenFD(port, 10, unix.SO_REUSEADDR))
	defer third()
	before := r.proxy.Stats().Accepted
	require.NoError(t, ask())
	require.Equal(t, before+1, r.proxy.Stats().Accepted, "it is proxied again")
}
