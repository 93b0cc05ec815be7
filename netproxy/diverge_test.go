package netproxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// serve answers every read on port with reply, until stop, which is a crash:
// all sockets are gone at once.
func (r *rig) serve(port int, reply string) (stop func()) {
	r.t.Helper()
	var l net.Listener
	require.NoError(r.t, netns.Do(r.app, func() error {
		var err error
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	var mu sync.Mutex
	var conns []*net.TCPConn
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c.(*net.TCPConn))
			mu.Unlock()
			wg.Go(func() {
				b := make([]byte, 64)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					if _, err := io.WriteString(c, reply); err != nil {
						return
					}
				}
			})
		}
	})
	r.dead.Store(uint32(Alive))
	return sync.OnceFunc(func() {
		r.dead.Store(uint32(InitDying))
		l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.SetLinger(0)
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// again crashes and rebuilds from the whole journal.
func (r *rig) again(stop func()) { r.againBy(stop, func(*replay.Plan) {}) }

// againBy edits the plan.
func (r *rig) againBy(stop func(), edit func(*replay.Plan)) {
	r.t.Helper()
	stop()
	ctx := context.Background()
	require.NoError(r.t, r.proxy.Crash(ctx))
	reader, err := r.journal.NewReader(r.journal.Start())
	require.NoError(r.t, err)
	plan, err := replay.Build(reader, nil, nil)
	require.NoError(r.t, err)
	require.NoError(r.t, reader.Close())
	edit(plan)
	require.NoError(r.t, r.proxy.Rebuild(ctx, plan, nil))
}

// TestDivergedOutputNeverReachesTheClient: the second run answers with more than
// the first. The client must not see a byte of the difference; in the end its
// connection is reset, and the one that did not diverge goes on.
func TestDivergedOutputNeverReachesTheClient(t *testing.T) {
	forEachOrder(t, func(t *testing.T, r *rig) {
		ctx := context.Background()
		stop := r.serve(7, "short")
		c, err := r.dial(nstest.App4, 7)
		require.NoError(t, err)
		defer c.Close()
		idle, err := r.dial(nstest.App4, 7)
		require.NoError(t, err)
		defer idle.Close()
		b := make([]byte, 64)
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(c, b[:5])
		require.NoError(t, err)

		r.again(stop)
		stop = r.serve(7, "SHORT and more")
		defer func() { stop() }()
		_, err = r.proxy.Replay(ctx, false)
		require.ErrorIs(t, err, ErrDiverged)

		r.again(stop)
		stop = r.serve(7, "SHORT and more")
		res, err := r.proxy.Replay(ctx, true)
		require.NoError(t, err)
		require.Equal(t, 1, res.Reset)
		_ = c.SetReadDeadline(time.Now().Add(soon))
		n, err := c.Read(b)
		require.Zero(t, n, "the client got %q", b[:n])
		require.ErrorIs(t, err, syscall.ECONNRESET)

		_, err = idle.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(idle, b[:14])
		require.NoError(t, err)
		require.Equal(t, "SHORT and more", string(b[:14]))
	})
}

// TestServerThatClosesAtOnce: its farewell and its FIN reach every client.
func TestServerThatClosesAtOnce(t *testing.T) {
	r := newRig(t, order.Auto)
	r.listen(7, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "full")
		c.Close()
	})
	for range 200 {
		c, err := r.dial(nstest.App4, 7)
		require.NoError(t, err)
		_ = c.SetReadDeadline(time.Now().Add(soon))
		b, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "full", string(b))
		c.Close()
	}
	require.Eventually(t, func() bool { return r.proxy.Stats().Connections == 0 }, soon, 10*time.Millisecond)
}

// TestLastWordsReachASlowClient: an application that exits leaves a large answer
// behind; the client gets all of it, late.
func TestLastWordsReachASlowClient(t *testing.T) {
	r := newRig(t, order.Auto)
	const total = 3 << 20
	wrote := make(chan struct{})
	r.listen(7, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetWriteBuffer(total)
		_, _ = c.Write(make([]byte, total))
		close(wrote)
		c.Close()
	})
	c, err := r.dial(nstest.App4, 7)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.(*net.TCPConn).SetReadBuffer(16<<10))
	_, err = c.Write([]byte("x"))
	require.NoError(t, err)
	select {
	case <-wrote:
	case <-time.After(300 * time.Millisecond):
	}
	r.dead.Store(uint32(InitDying))
	done := make(chan int64)
	go func() {
		time.Sleep(300 * time.Millisecond)
		n, err := io.Copy(io.Discard, c)
		if err != nil {
			n = -1 // a reset says that it is not all; an orderly end would lie
		}
		done <- n
	}()
	<-wrote
	require.NoError(t, r.proxy.Close())
	n := <-done
	require.True(t, n == total || n == -1, "the client took %d of %d bytes for the whole", n, total)
}
