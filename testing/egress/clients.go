package egress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/crsc-io/crsc/testing/load"
)

// Clients send requests, each over a connection of its own that lasts, one at a
// time.
type Clients struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex // guards all below
	served  int
	longest time.Duration
	errs    []error
}

// answerLimit bounds the wait for one answer, recovery included.
const answerLimit = 30 * time.Second

// StartClients connects n clients from the network namespace at path.
func StartClients(ctx context.Context, path string, target netip.AddrPort, n int) (*Clients, error) {
	d, err := load.NewDialer(path, 1)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	c := &Clients{stop: make(chan struct{})}
	var conns []net.Conn
	for range n {
		conn, err := d.Dial(ctx, target)
		if err != nil {
			for _, o := range conns {
				o.Close()
			}
			return nil, err
		}
		conns = append(conns, conn)
	}
	for i, conn := range conns {
		c.wg.Go(func() {
			defer conn.Close()
			if err := c.run(conn, i); err != nil {
				c.mu.Lock()
				c.errs = append(c.errs, fmt.Errorf("client %d: %w", i, err))
				c.mu.Unlock()
			}
		})
	}
	return c, nil
}

func (c *Clients) run(conn net.Conn, i int) error {
	answers := bufio.NewReader(conn)
	for n := 0; ; n++ {
		select {
		case <-c.stop:
			return nil
		default:
		}
		id := fmt.Sprintf("%d-%d", i, n)
		begun := time.Now()
		if err := request(conn, answers, id); err != nil {
			return fmt.Errorf("request %s: %w", id, err)
		}
		c.mu.Lock()
		c.served++
		c.longest = max(c.longest, time.Since(begun))
		c.mu.Unlock()
	}
}

func request(conn net.Conn, answers *bufio.Reader, id string) error {
	if err := conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: teller\r\n\r\n", id); err != nil {
		return err
	}
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || string(body) != id {
		return fmt.Errorf("status %d, %.100q", resp.StatusCode, body)
	}
	return nil
}

// Stop waits for the requests under way.
func (c *Clients) Stop() (served int, longest time.Duration, errs []error) {
	close(c.stop)
	c.wg.Wait()
	return c.served, c.longest, c.errs
}
