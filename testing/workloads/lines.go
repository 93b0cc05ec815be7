package workloads

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crsc-io/crsc/testing/load"
)

// lineConn is a connection on which lines are asked and answered.
type lineConn struct {
	net.Conn
	in *bufio.Reader
}

// ask sends a request and returns the first line of the answer.
func (c *lineConn) ask(request string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte(request)); err != nil {
		return "", err
	}
	line, err := c.in.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// swarm are clients that each ask one thing after the other, each on a
// connection that is never opened again.
type swarm struct {
	stop     context.CancelFunc
	work     sync.WaitGroup
	judge    *lineConn // for checks
	count    []int     // answered requests of each client, after its end
	requests atomic.Int64
	errors   atomic.Int64
	first    atomic.Pointer[error]
	conns    []*lineConn
}

// startSwarm opens n connections for clients and one for checks. one makes the
// i-th request of a client, counted from 1.
func startSwarm(ctx context.Context, s *site, n int, one func(c *lineConn, client, i int) error) (*swarm, error) {
	d, err := load.NewDialer(s.env.Client().Path, 1)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	w := &swarm{count: make([]int, n)}
	for range n + 1 {
		conn, err := d.Dial(ctx, netip.AddrPortFrom(s.pod.IP4, s.w.port))
		if err != nil {
			w.close()
			return nil, err
		}
		w.conns = append(w.conns, &lineConn{conn, bufio.NewReader(conn)})
	}
	w.judge = w.conns[n]
	ctx, w.stop = context.WithCancel(ctx)
	for client := range n {
		w.work.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				if err := one(w.conns[client], client, i); err != nil {
					err = fmt.Errorf("client %d, request %d: %w", client, i, err)
					w.first.CompareAndSwap(nil, &err)
					w.errors.Add(1)
					return
				}
				w.count[client] = i
				w.requests.Add(1)
				time.Sleep(2 * time.Millisecond) // so that the kills, not the load, are what is tried
			}
		})
	}
	return w, nil
}

// failure is the first error of a client.
func (w *swarm) failure() error {
	if err := w.first.Load(); err != nil {
		return *err
	}
	return nil
}

// halt ends the clients.
func (w *swarm) halt() {
	w.stop()
	w.work.Wait()
}

func (w *swarm) close() {
	for _, c := range w.conns {
		_ = c.Close()
	}
}
