package netproxy

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

// flood sends n SYNs to an address, from the client's namespace, in the name of
// hosts that never answer: others with each seed.
func (r *tcpRig) flood(to netip.AddrPort, n int, seed uint64) {
	r.t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	nstest.In(r.t, r.client, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range n {
			if err := unix.Sendto(fd, strangersSYN(to, rng), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
				return fmt.Errorf("send a SYN: %w", err)
			}
		}
		return nil
	})
}

// strangersSYN is a packet from a random host of 198.18.0.0/15. The kernel adds the
// checksum of the IP header (RFC 791), not that of TCP (RFC 9293).
func strangersSYN(to netip.AddrPort, rng *rand.Rand) []byte {
	p := make([]byte, 40)
	be := binary.BigEndian
	p[0], p[8], p[9] = 4<<4|5, 64, unix.IPPROTO_TCP
	be.PutUint32(p[12:], 198<<24|18<<16|rng.Uint32N(1<<17))
	daddr := to.Addr().As4()
	copy(p[16:], daddr[:])
	tcp := p[20:]
	be.PutUint16(tcp, uint16(1024+rng.IntN(60000)))
	be.PutUint16(tcp[2:], to.Port())
	be.PutUint32(tcp[4:], rng.Uint32())
	tcp[12], tcp[13] = 5<<4, 2 // no options; SYN
	be.PutUint16(tcp[14:], 65535)
	sum := uint32(unix.IPPROTO_TCP + len(tcp))
	for _, b := range [][]byte{p[12:20], tcp} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(be.Uint16(b[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	be.PutUint16(tcp[16:], ^uint16(sum))
	return p
}

// TestSYNFlood: more half-open connections than the kernel remembers keep nobody
// from being served who is in earnest, though the application's backlog is one.
func TestSYNFlood(t *testing.T) {
	r := newTCPRig(t, order.Auto, nil)
	const port, strangers, clients = 90, 2 * redirect.DefaultBacklog, 20
	fd := r.listenFD(port, 1)
	go func() {
		for {
			s, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			go func() {
				defer unix.Close(s)
				b := make([]byte, 1<<16)
				for {
					n, err := unix.Read(s, b)
					if n <= 0 || err != nil {
						return
					}
					for sent := 0; sent < n; {
						k, err := unix.Write(s, b[sent:n])
						if err != nil {
							return
						}
						sent += k
					}
				}
			}()
		}
	}()
	defer func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR); unix.Close(fd) }()
	to := netip.AddrPortFrom(nstest.App4, port)
	r.flood(to, strangers, clients)
	for i := range clients {
		c, err := r.rig.dial(to.Addr(), port)
		require.NoError(t, err, "client %d", i)
		require.NoError(t, echoes(c), "client %d", i)
		require.NoError(t, c.Close())
		r.flood(to, strangers/clients, uint64(i))
	}
	require.NotZero(t, nstest.Counter(t, r.app, nstest.CookiesTaken), "the kernel had to forget handshakes")
	require.EqualValues(t, clients, r.proxy.Stats().Accepted, "nobody else is there")
}
