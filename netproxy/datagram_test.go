package netproxy

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/testing/datagrams"
)

// serveEnv makes the test program the server.
const serveEnv = "CRSC_TEST_SERVE_DATAGRAMS"

func newDatagramRig(t *testing.T, kind order.Kind, jo journal.Options) *rig {
	r := newRigWith(t, kind, jo, func(o *Options) { o.Datagrams = true })
	r.command = func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env, cmd.Stderr = append(os.Environ(), serveEnv+"=1"), os.Stderr
		return cmd
	}
	return r
}

// datagramClients starts clients when the server serves.
func (r *rig) datagramClients(port uint16, n int) *datagrams.Clients {
	r.t.Helper()
	c, err := r.dial(nstest.App4, datagrams.Port)
	for deadline := time.Now().Add(soon); err != nil; c, err = r.dial(nstest.App4, datagrams.Port) {
		require.True(r.t, time.Now().Before(deadline), "%v", err)
		time.Sleep(5 * time.Millisecond)
	}
	require.NoError(r.t, c.Close())
	clients, err := datagrams.StartClients(context.Background(), fmt.Sprintf("/proc/self/fd/%d", r.client), []netip.AddrPort{netip.AddrPortFrom(nstest.App4, port), netip.AddrPortFrom(nstest.App6, port)}, n)
	require.NoError(r.t, err)
	return clients
}

// TestDatagramsSurviveCrashes kills a server that takes requests by UDP and TCP
// again and again; all are counted once, and in the same order.
func TestDatagramsSurviveCrashes(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			datagramsSurvive(t, newDatagramRig(t, kind, journal.Options{}), datagrams.Port)
		})
	}
	t.Run("disk", func(t *testing.T) {
		datagramsSurvive(t, newDatagramRig(t, order.Tracepoint, journal.Options{Durability: journal.Disk}), datagrams.Port)
	})
	t.Run("address translation", func(t *testing.T) {
		r := newDatagramRig(t, order.Tracepoint, journal.Options{})
		const other = 7008
		var out bytes.Buffer
		nft := exec.Command("nft", "-f", "-")
		nft.Stdin = strings.NewReader(fmt.Sprintf(`table inet mesh {
			chain prerouting {
				type nat hook prerouting priority dstnat
				meta l4proto { tcp, udp } th dport %d redirect to :%d
			}
			chain input { type filter hook input priority 0; policy accept; ct state invalid drop; }
			chain output { type filter hook output priority 0; policy accept; ct state invalid drop; }
		}`, other, datagrams.Port))
		nft.Stdout, nft.Stderr = &out, &out
		require.NoError(t, netns.Do(r.app, nft.Run), "%s", out.String())
		datagramsSurvive(t, r, other)
	})
}

func datagramsSurvive(t *testing.T, r *rig, port uint16) {
	r.start()
	clients := r.datagramClients(port, 12)
	for range 4 {
		before := clients.Served()
		for deadline := time.Now().Add(soon); clients.Served() < before+300; {
			require.True(t, time.Now().Before(deadline), "%d requests served, then %d", before, clients.Served())
			time.Sleep(time.Millisecond)
		}
		r.kill()
		res := r.recover()
		require.Zero(t, res.Differing)
		t.Logf("%+v", res)
	}
	before := clients.Served()
	for deadline := time.Now().Add(soon); clients.Served() < before+100 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	_, longest, err := clients.Stop()
	require.NoError(t, err)
	s := r.proxy.Stats()
	t.Logf("longest %s, %+v", longest, s)
	require.NotZero(t, s.Datagrams)
	require.NotZero(t, s.Repeated)
	require.Zero(t, s.Dropped)
}

// serveInstead runs the server if this process was started for that.
func serveInstead() {
	if os.Getenv(serveEnv) == "" {
		return
	}
	fmt.Fprintln(os.Stderr, datagrams.Serve())
	os.Exit(1)
}
