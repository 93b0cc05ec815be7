package netproxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
)

// narrow makes the way to the client lose packets of more than most bytes without
// a word.
func (r *tcpRig) narrow(most int) {
	r.t.Helper()
	app := nstest.Handle(r.t, r.app)
	eth, err := app.LinkByName("eth0")
	require.NoError(r.t, err)
	require.NoError(r.t, app.LinkSetGSOMaxSegs(eth, 1), "packets as they would be on a wire")
	rules := fmt.Sprintf("table inet narrow { chain in { type filter hook prerouting priority raw; meta length > %d drop; }; }", most)
	require.NoError(r.t, netns.Do(r.client, func() error {
		if out, err := exec.Command("nft", rules).CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	}))
}

// TestBlackHole: where routers drop what is too long for them and nobody hears of
// it, net.ipv4.tcp_mtu_probing gets the data of an application through, and ours.
func TestBlackHole(t *testing.T) {
	r := newTCPRig(t, order.Auto, nil)
	setSysctl(t, r.app, "tcp_mtu_probing", "1")
	setSysctl(t, r.app, "tcp_retries1", "1") // it looks for a hole sooner
	const most = 1200
	r.narrow(most)
	data := blob(100_000)
	var wg sync.WaitGroup
	for _, addr := range []netip.Addr{nstest.App4, nstest.App6} {
		for _, port := range []uint16{directPort, proxiedPort} {
			c, s := r.pair(addr, port)
			wg.Go(func() {
				_, err := s.Write(data)
				assert.NoError(t, err)
			})
			wg.Go(func() {
				_ = c.SetDeadline(time.Now().Add(soon))
				got := make([]byte, len(data))
				n, err := io.ReadFull(c, got)
				assert.NoError(t, err, "%v, port %d: %d bytes", addr, port, n)
				assert.True(t, string(got) == string(data))
				assert.LessOrEqual(t, largest(t, c), uint32(most), "%v, port %d", addr, port)
			})
		}
	}
	wg.Wait()
}

// largest is the size of the largest segment that has come.
func largest(t *testing.T, c *net.TCPConn) (n uint32) {
	require.NoError(t, onFD(c, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		if err == nil {
			n = info.Rcv_mss
		}
		return err
	}))
	return n
}
