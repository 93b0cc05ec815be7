package datagrams

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// Clients send requests, each one at a time.
type Clients struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex // guards all below
	served  int
	longest time.Duration
	errs    []error
	chains  map[string]string // answers, by the chain's value
}

// answerLimit bounds the wait for one answer, recovery included. A request is
// never sent again, so one that is lost takes this long to show.
const answerLimit = time.Minute

// StartClients starts n clients in the network namespace at path; every fourth
// uses TCP. The addresses are used in turn.
func StartClients(ctx context.Context, path string, addrs []netip.AddrPort, n int) (*Clients, error) {
	ns, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	c := &Clients{stop: make(chan struct{}), chains: map[string]string{}}
	conns := make([]net.Conn, 0, n)
	for i := range n {
		network := "udp"
		if i%4 == 3 {
			network = "tcp"
		}
		err := netns.Do(int(ns.Fd()), func() error {
			var d net.Dialer
			conn, err := d.DialContext(ctx, network, addrs[i%len(addrs)].String())
			if err == nil {
				conns = append(conns, conn)
			}
			return err
		})
		if err != nil {
			for _, o := range conns {
				o.Close()
			}
			return nil, err
		}
	}
	for i, conn := range conns {
		c.wg.Go(func() {
			defer conn.Close()
			if err := c.run(conn, fmt.Sprintf("%s%d", conn.RemoteAddr().Network(), i)); err != nil {
				c.mu.Lock()
				c.errs = append(c.errs, fmt.Errorf("client %d (%s from %s): %w", i, conn.RemoteAddr().Network(), conn.LocalAddr(), err))
				c.mu.Unlock()
			}
		})
	}
	return c, nil
}

func (c *Clients) run(conn net.Conn, name string) error {
	buf := make([]byte, 1<<10)
	for n := 1; ; n++ {
		select {
		case <-c.stop:
			return nil
		default:
		}
		begun := time.Now()
		if _, err := conn.Write(request(name, n)); err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
		if err := conn.SetReadDeadline(begun.Add(answerLimit)); err != nil {
			return err
		}
		m, err := conn.Read(buf)
		if err != nil {
			return fmt.Errorf("answer to request %d: %w", n, err)
		}
		if err := c.check(name, n, string(buf[:m]), time.Since(begun)); err != nil {
			return err
		}
		time.Sleep(time.Duration(rand.IntN(int(4 * time.Millisecond))))
	}
}

// request is mostly small; some need fragments.
func request(name string, n int) []byte {
	b := fmt.Appendf(nil, "%s %d", name, n)
	if strings.HasPrefix(name, "udp") && rand.IntN(20) == 0 {
		b = append(b, ' ')
		b = append(b, strings.Repeat("x", rand.IntN(30000))...)
	}
	return append(b, '\n')
}

// check verifies an answer: that it is to this request, that the server has
// counted as many as were sent, and that no two answers have the same chain.
func (c *Clients) check(name string, n int, answer string, took time.Duration) error {
	words := strings.Fields(answer)
	if len(words) != 4 || words[0] != name || words[1] != fmt.Sprint(n) || words[2] != fmt.Sprint(n) {
		return fmt.Errorf("answer to request %d of %s: %q", n, name, answer)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other, again := c.chains[words[3]]; again {
		return fmt.Errorf("answers %q and %q have the same chain", other, answer)
	}
	c.chains[words[3]] = answer
	c.served++
	c.longest = max(c.longest, took)
	return nil
}

// Served is how many requests were answered until now.
func (c *Clients) Served() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.served
}

// Stop ends the clients. It returns how many requests were answered, the longest
// time that one took, and what was wrong.
func (c *Clients) Stop() (served int, longest time.Duration, err error) {
	close(c.stop)
	c.wg.Wait()
	return c.served, c.longest, errors.Join(c.errs...)
}
