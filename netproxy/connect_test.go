package netproxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/order"
)

// silentServer listens and does not answer: its backlog is full. What it
// accepts is counted by accepted, which waits for nothing.
func (r *rig) silentServer(port uint16) (accepted func() int) {
	r.t.Helper()
	var fd int
	require.NoError(r.t, netns.Do(r.client, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: nstest.Client4.As4()}); err != nil {
			return err
		}
		return unix.Listen(fd, 0)
	}))
	r.t.Cleanup(func() { unix.Close(fd) })
	filler, err := r.dial(nstest.Client4, port)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { filler.Close() })
	return func() (n int) {
		for {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				return n - 1 // the filler
			}
			unix.Close(c)
			n++
		}
	}
}

// TestSilentServer: a connection that the application has given up is given up
// by us, too, and its server never hears of it; a replay is no other.
func TestSilentServer(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	accepted := r.silentServer(bankPort)
	const limit = 300 * time.Millisecond
	serve := func(a *teller, c *net.TCPConn) {
		defer c.Close()
		for s := bufio.NewScanner(c); s.Scan(); {
			var d net.Dialer
			ctx, cancel := context.WithTimeout(a.ctx, limit)
			err := netns.Do(a.r.app, func() error {
				_, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(nstest.Client4, bankPort).String())
				return err
			})
			cancel()
			fmt.Fprintln(c, err)
		}
	}
	a := r.teller(serve)
	c, err := r.dial(nstest.App4, tellerPort)
	require.NoError(t, err)
	defer c.Close()
	answers := bufio.NewReader(c)
	ask := func() {
		fmt.Fprintln(c, "go")
		_ = c.SetReadDeadline(time.Now().Add(soon))
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		require.Contains(t, line, "timeout")
		require.Eventually(t, func() bool { return r.proxy.Stats().Connections == 1 }, soon, 10*time.Millisecond,
			"the dial goes on although nobody waits for it")
	}
	ask()
	_, res := r.restart(a, serve)
	require.Zero(t, res.Differing)
	require.Zero(t, res.Reset)
	ask()
	require.Zero(t, accepted(), "the server met a connection that had been given up")
}

// TestRefusedOnce: a copy of a SYN that comes after its refusal is refused, too,
// and not taken for another connection.
func TestRefusedOnce(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	a := &teller{r: r, ctx: t.Context()}
	_, err := a.dial(netip.AddrPortFrom(nstest.Client4, 1))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.EqualValues(t, 1, r.proxy.Stats().Opened)
	require.NoError(t, r.proxy.do(t.Context(), "send the SYN again", func() error {
		require.Len(t, r.proxy.egress.refused, 1)
		for at, refusal := range r.proxy.egress.refused {
			r.proxy.onPacket(&nfqueue.Packet{ID: 1 << 30, Payload: synOf(at, refusal.seq)})
			require.Empty(t, r.proxy.egress.opening)
			r.proxy.onPacket(&nfqueue.Packet{ID: 1 << 30, Payload: synOf(at, refusal.seq+1)})
			require.Len(t, r.proxy.egress.opening, 1, "the application tries again from the same port")
		}
		return nil
	}))
	// Nobody waits for the second, which no socket has sent.
	require.Eventually(t, func() bool { return r.proxy.Stats().Connections == 0 }, soon, 10*time.Millisecond)
}

// synOf is an IPv4 SYN from its network header on.
func synOf(at pair, seq uint32) []byte {
	b := make([]byte, 40)
	b[0], b[9] = 0x45, unix.IPPROTO_TCP
	copy(b[12:], at.client.Addr().AsSlice())
	copy(b[16:], at.server.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[20:], at.client.Port())
	binary.BigEndian.PutUint16(b[22:], at.server.Port())
	binary.BigEndian.PutUint32(b[24:], seq)
	b[32], b[33] = 5<<4, 2 // the header's length; SYN
	return b
}
