package netproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
)

var kinds = map[string]order.Kind{"tracepoint": order.Tracepoint, "serial": order.Serial}

// forEachOrder runs a test with both kinds of order, and with a journal that is
// committed behind.
func forEachOrder(t *testing.T, fn func(t *testing.T, r *rig)) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) { fn(t, newRig(t, kind)) })
	}
	t.Run("disk", func(t *testing.T) { fn(t, newRigIn(t, order.Tracepoint, journal.Options{Durability: journal.Disk})) })
}

func TestRequestsPassInBothFamilies(t *testing.T) {
	forEachOrder(t, func(t *testing.T, r *rig) {
		r.start()
		for _, addr := range []*redisConn{r.mustDial(nstest.App4), r.mustDial(nstest.App6)} {
			for range 3 {
				_, err := addr.incr("k")
				require.NoError(t, err)
			}
		}
		s := r.proxy.Stats()
		require.EqualValues(t, 6, s.InRecords)
		require.EqualValues(t, 2, s.Connections)
	})
}

func TestNobodyListeningIsRefused(t *testing.T) {
	r := newRig(t, order.Auto)
	_, err := r.dial(nstest.App4, 6379)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// TestCrashesAreHidden kills Redis under load, again and again. Every client
// checks that its own key grows by one with each reply, and that the shared
// key's replies are unique and growing.
func TestCrashesAreHidden(t *testing.T) {
	forEachOrder(t, func(t *testing.T, r *rig) {
		r.start()
		const clients, kills = 20, 4
		var stop atomic.Bool
		var done atomic.Int64
		var shared sync.Map
		var wg sync.WaitGroup
		for i := range clients {
			addr := nstest.App4
			if i%3 == 0 {
				addr = nstest.App6
			}
			c := r.mustDial(addr)
			wg.Go(func() {
				own := fmt.Sprintf("own%d", i)
				last := int64(0)
				for n := int64(1); !stop.Load(); n++ {
					v, err := c.incr(own)
					if err != nil || v != n {
						t.Errorf("client %d: own key %d, want %d: %v", i, v, n, err)
						return
					}
					v, err = c.incr("shared")
					if err != nil || v <= last {
						t.Errorf("client %d: shared key %d after %d: %v", i, v, last, err)
						return
					}
					if _, again := shared.LoadOrStore(v, i); again {
						t.Errorf("shared value %d was given twice", v)
						return
					}
					last = v
					done.Add(1)
				}
			})
		}
		for range kills {
			time.Sleep(200 * time.Millisecond)
			r.kill()
			res := r.recover()
			require.Zero(t, res.Differing)
			t.Logf("%+v", res)
		}
		time.Sleep(100 * time.Millisecond)
		stop.Store(true)
		wg.Wait()
		c := r.mustDial(nstest.App4)
		v, err := c.incr("shared")
		require.NoError(t, err)
		require.Equal(t, done.Load()+1, v)
		require.Zero(t, r.proxy.Stats().Differing)
	})
}

// TestConnectionsThatComeAndGo has each client reconnect every few requests,
// through crashes too.
func TestConnectionsThatComeAndGo(t *testing.T) {
	forEachOrder(t, func(t *testing.T, r *rig) {
		r.start()
		r.mustDial(nstest.App4)
		var stop atomic.Bool
		var done atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for n := 0; !stop.Load(); n++ {
					c, err := r.dial(nstest.App4, 6379)
					if err != nil {
						t.Errorf("client %d: %v", i, err)
						return
					}
					rc := newRedisConn(c)
					for range 5 {
						if _, err := rc.incr("shared"); err != nil {
							t.Errorf("client %d: %v", i, err)
							c.Close()
							return
						}
						done.Add(1)
					}
					c.Close()
				}
			})
		}
		for range 3 {
			time.Sleep(150 * time.Millisecond)
			r.kill()
			res := r.recover()
			require.Zero(t, res.Differing)
		}
		stop.Store(true)
		wg.Wait()
		v, err := r.mustDial(nstest.App4).incr("shared")
		require.NoError(t, err)
		require.Equal(t, done.Load()+1, v)
		require.Eventually(t, func() bool { return r.proxy.Stats().Connections == 2 }, soon, 10*time.Millisecond)
	})
}

// listen serves in the application's namespace with a handler per connection.
func (r *rig) listen(port int, handle func(*net.TCPConn)) {
	r.t.Helper()
	var l net.Listener
	require.NoError(r.t, netns.Do(r.app, func() error {
		var err error
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	r.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c.(*net.TCPConn))
		}
	}()
}

func TestHalfCloseBothWays(t *testing.T) {
	r := newRig(t, order.Auto)
	r.listen(7, func(c *net.TCPConn) {
		defer c.Close()
		b, err := io.ReadAll(c) // until the client's FIN
		if err == nil {
			fmt.Fprintf(c, "%d bytes", len(b))
		}
	})
	c, err := r.dial(nstest.App4, 7)
	require.NoError(t, err)
	defer c.Close()
	payload := make([]byte, 3<<20)
	_, err = c.Write(payload)
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%d bytes", len(payload)), string(b))
}

func TestResetReachesTheOtherSide(t *testing.T) {
	r := newRig(t, order.Auto)
	seen := make(chan error, 1)
	r.listen(7, func(c *net.TCPConn) {
		b := make([]byte, 16)
		_, err := c.Read(b)
		seen <- err
		_, err = c.Read(b)
		seen <- err
		c.Close()
	})
	r.listen(8, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
		c.Close()
	})
	c, err := r.dial(nstest.App4, 7)
	require.NoError(t, err)
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, <-seen)
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
	require.ErrorIs(t, <-seen, syscall.ECONNRESET)

	c, err = r.dial(nstest.App4, 8)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

// TestSlowReaderHoldsTheSender checks that back-pressure goes through: the
// application can't write much more than buffers hold while its client does not
// read, and everything arrives when it does.
func TestSlowReaderHoldsTheSender(t *testing.T) {
	r := newRig(t, order.Auto)
	const total = 64 << 20
	var written atomic.Int64
	r.listen(7, func(c *net.TCPConn) {
		defer c.Close()
		b := make([]byte, 64<<10)
		for written.Load() < total {
			n, err := c.Write(b)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	c, err := r.dial(nstest.App4, 7)
	require.NoError(t, err)
	defer c.Close()
	last := int64(-1)
	for written.Load() != last {
		last = written.Load()
		time.Sleep(300 * time.Millisecond)
	}
	require.Less(t, last, int64(total), "the sender was never stopped")
	n, err := io.Copy(io.Discard, c)
	require.NoError(t, err)
	require.EqualValues(t, total, n)
}

func TestHoldStopsInputAndReleaseLetsItFlow(t *testing.T) {
	forEachOrder(t, func(t *testing.T, r *rig) {
		r.start()
		c := r.mustDial(nstest.App4)
		_, err := c.incr("k")
		require.NoError(t, err)
		ctx := context.Background()
		res, err := r.proxy.Hold(ctx, soon)
		require.NoError(t, err)
		require.True(t, res.Quiet)
		answer := make(chan int64, 1)
		go func() {
			v, err := c.incr("k")
			if err != nil {
				v = -1
			}
			answer <- v
		}()
		select {
		case v := <-answer:
			t.Fatalf("answered %d while held", v)
		case <-time.After(200 * time.Millisecond):
		}
		table, err := r.proxy.Cut(ctx, 1)
		require.NoError(t, err)
		require.Len(t, table.Conns, 1)
		require.Equal(t, table.Conns[0].InSent, table.Conns[0].InConsumed)
		_, err = r.proxy.Hold(ctx, soon)
		require.ErrorIs(t, err, ErrPhase)
		require.NoError(t, r.proxy.Release(ctx))
		require.EqualValues(t, 2, <-answer)
	})
}

func TestCloseByADyingApplicationIsHeldBack(t *testing.T) {
	const hold = 250 * time.Millisecond
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) { o.DyingFor = hold })
	r.death = ChildDying
	r.start()
	c := r.mustDial(nstest.App4)
	_, err := c.incr("k")
	require.NoError(t, err)
	died := time.Now()
	r.kill()
	// Nobody recovers it: after a while, and not before, the close is believed.
	_ = c.c.SetReadDeadline(time.Now().Add(soon))
	_, err = c.c.Read(make([]byte, 1))
	require.True(t, errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET), "%v", err)
	require.GreaterOrEqual(t, time.Since(died), hold)
}
