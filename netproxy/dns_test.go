package netproxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
)

const dnsPort = 53

// nameServer answers over UDP with nothing but the word that it does not fit, and
// over TCP with an address.
type nameServer struct{ udp, tcp atomic.Int64 }

func (r *rig) nameServer() *nameServer {
	r.t.Helper()
	s := &nameServer{}
	var pc net.PacketConn
	nstest.In(r.t, r.client, func() (err error) {
		pc, err = net.ListenPacket("udp4", netip.AddrPortFrom(nstest.Client4, dnsPort).String())
		return err
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if reply, err := answerName(b[:n], true); err == nil {
				s.udp.Add(1)
				_, _ = pc.WriteTo(reply, from)
			}
		}
	})
	r.t.Cleanup(func() { pc.Close(); wg.Wait() })
	r.listenIn(r.client, dnsPort, func(c *net.TCPConn) {
		defer c.Close()
		for {
			var size [2]byte
			if _, err := io.ReadFull(c, size[:]); err != nil {
				return
			}
			b := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			reply, err := answerName(b, false)
			if err != nil {
				return
			}
			s.tcp.Add(1)
			_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
		}
	})
	return s
}

func answerName(query []byte, truncated bool) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.RecursionAvailable, m.Truncated = true, true, truncated
	if q := m.Questions[0]; !truncated && q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
			Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, byte(len(q.Name.String()))}},
		}}
	}
	return m.Pack()
}

// TestNames: an application looks names up while it is killed. What does not fit a
// datagram comes over TCP.
func TestNames(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	names := r.nameServer()
	serve := func(a *teller, c *net.TCPConn) {
		defer c.Close()
		resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
			err = netns.Do(r.app, func() error {
				c, err = (&net.Dialer{}).DialContext(ctx, network, netip.AddrPortFrom(nstest.Client4, dnsPort).String())
				return err
			})
			if tc, ok := c.(*net.TCPConn); ok && err == nil {
				a.own(tc)
			}
			return c, err
		}}
		for s := bufio.NewScanner(c); s.Scan(); {
			ips, err := resolver.LookupNetIP(a.ctx, "ip4", s.Text())
			if a.dead.Load() {
				return
			}
			fmt.Fprintln(c, ips, err)
		}
	}
	a := r.teller(serve)
	c := r.dialOK(netip.AddrPortFrom(nstest.App4, tellerPort))
	answers := bufio.NewReader(c)
	for n := range 6 {
		name := fmt.Sprintf("%0*d.example.", 10+n, n)
		_, err := fmt.Fprintln(c, name)
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("[192.0.2.%d] <nil>\n", len(name)), line)
		if n%2 == 1 {
			var res ReplayResult
			a, res = r.restart(a, serve)
			require.Zero(t, res.Differing)
			require.Zero(t, res.Reset)
		}
	}
	require.GreaterOrEqual(t, names.udp.Load(), int64(6))
	require.GreaterOrEqual(t, names.tcp.Load(), int64(6))
	require.EqualValues(t, 1, r.proxy.Stats().Connections, "questions pass")
}
