package netproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
)

// webBank is a bank that speaks HTTP, and knows for what it was charged.
type webBank struct {
	bank
	mu    sync.Mutex // guards times
	times map[string]int
}

func (r *rig) webBank() *webBank {
	b := &webBank{times: map[string]int{}}
	l := r.listener(r.client, bankPort)
	s := http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			id := strings.TrimPrefix(req.URL.Path, "/")
			b.mu.Lock()
			b.times[id]++
			b.mu.Unlock()
			fmt.Fprintf(w, "charge %s %d", id, b.charged.Add(1))
		}),
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				b.opened.Add(1)
			}
		},
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	r.t.Cleanup(func() { s.Close(); wg.Wait() })
	return b
}

// doubled returns what the bank was charged for more than once.
func (b *webBank) doubled() (ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, n := range b.times {
		if n > 1 {
			ids = append(ids, id)
		}
	}
	return ids
}

// pooled serves clients as counter does, all over one pool of connections, in
// which any request may take any connection: idle are kept, and at most most are
// opened. The query is added to each request.
func pooled(to netip.AddrPort, idle, most int, query string) func() func(*teller, *net.TCPConn) {
	return func() func(*teller, *net.TCPConn) {
		var a *teller
		var once sync.Once
		tr := &http.Transport{MaxIdleConnsPerHost: idle, MaxConnsPerHost: most}
		tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return a.dial(to) }
		return func(by *teller, c *net.TCPConn) {
			once.Do(func() { a = by })
			defer c.Close()
			for s := bufio.NewScanner(c); s.Scan(); {
				req, err := http.NewRequestWithContext(a.ctx, http.MethodPost, "http://bank/"+s.Text()+query, strings.NewReader("please"))
				if err != nil {
					return
				}
				res, err := tr.RoundTrip(req)
				if err != nil {
					if !a.dead.Load() {
						fmt.Fprintf(c, "error %v\n", err)
					}
					return
				}
				said, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil {
					return // crashed
				}
				fmt.Fprintf(c, "done %s\n", said)
			}
		}
	}
}

// TestPool: an application that takes any connection of a pool for a request is
// recovered although it takes others in its second life, and closes others.
func TestPool(t *testing.T) {
	for name, kind := range kinds {
		for what, pool := range map[string]struct{ clients, idle, most int }{
			"for all":         {8, 16, 0},
			"half are closed": {8, 4, 0},
			"net/http's own":  {20, 2, 0},
			"capped":          {8, 4, 4},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				r := newEgressRig(t, kind)
				b := r.webBank()
				app := pooled(netip.AddrPortFrom(nstest.Client4, bankPort), pool.idle, pool.most, "")
				a := r.teller(app())
				var served atomic.Int64
				var gate sync.RWMutex
				stop := r.charge(pool.clients, &served, &gate)
				const kills = 4
				for range kills {
					awaitServed(t, &served, pool.clients)
					var res ReplayResult
					a, res = r.restartAgain(a, app)
					require.Zero(t, res.Differing)
					t.Logf("%+v", res)
				}
				time.Sleep(100 * time.Millisecond)
				stop()
				require.Empty(t, b.doubled())
				require.Equal(t, served.Load(), b.charged.Load())
				require.GreaterOrEqual(t, served.Load(), int64(pool.clients*kills))
				t.Logf("%d charges over %d connections", b.charged.Load(), b.opened.Load())
			})
		}
	}
}

// TestPoolThatDiffers: a request that has no record, while the record has one that
// is not made, ends the replay at once, and never reaches its server.
func TestPoolThatDiffers(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			r := newEgressRig(t, kind)
			b := r.webBank()
			to := netip.AddrPortFrom(nstest.Client4, bankPort)
			a := r.teller(pooled(to, 2, 0, "?life=1")())
			var served atomic.Int64
			stop := r.charge(4, &served, &sync.RWMutex{})
			require.Eventually(t, func() bool { return served.Load() > 20 }, soon, time.Millisecond)
			stop()
			charged := b.charged.Load()
			r.again(a.stop)
			a = r.teller(pooled(to, 2, 0, "?life=2")())
			begun := time.Now()
			_, err := r.proxy.Replay(t.Context(), false)
			require.ErrorIs(t, err, ErrDiverged)
			require.Less(t, time.Since(begun), StallAfter)
			r.again(a.stop)
			r.teller(pooled(to, 2, 0, "?life=3")())
			res, err := r.proxy.Replay(t.Context(), true)
			require.NoError(t, err)
			require.NotZero(t, res.Reset)
			require.Equal(t, charged, b.charged.Load())
			require.Empty(t, b.doubled())
		})
	}
}
