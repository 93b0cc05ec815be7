package datagrambench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/testing/bench"
)

// load is what the clients do.
type load struct {
	name                  string
	clients, window, size int // size of a request, in bytes
}

func (l load) String() string {
	return fmt.Sprintf("%d clients, %d requests of %d bytes under way", l.clients, l.window, l.size)
}

// answerLimit is how long an answer may take.
const answerLimit = time.Second

// series is what one server did under one load, by round.
type series struct {
	rate, p99 bench.Sample
	lost      int
}

// add measures for a time, with clients in the network namespace at path.
func (s *series) add(ctx context.Context, path string, addr netip.AddrPort, l load, length time.Duration) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	clients := make([]*client, l.clients)
	for i := range clients {
		err := netns.Do(int(ns.Fd()), func() error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr.String())
			clients[i] = &client{conn: conn, load: l}
			return err
		})
		if err != nil {
			return err
		}
		defer clients[i].conn.Close()
	}
	var wg sync.WaitGroup
	begun := time.Now()
	for _, c := range clients {
		wg.Go(func() { c.err = c.run(begun.Add(length)) })
	}
	wg.Wait()
	var took bench.Sample
	answers := 0
	for _, c := range clients {
		if c.err != nil {
			return c.err
		}
		answers += len(c.took)
		took = append(took, c.took...)
		s.lost += c.lost
	}
	s.rate = append(s.rate, float64(answers)/length.Seconds())
	s.p99 = append(s.p99, took.Quantile(0.99))
	return nil
}

// client has a window of requests under way, each with a number of its own.
type client struct {
	load
	conn net.Conn
	sent map[int]time.Time
	next int
	took bench.Sample // milliseconds
	lost int
	err  error
}

func (c *client) run(until time.Time) error {
	c.sent = map[int]time.Time{}
	for range c.window {
		if err := c.ask(); err != nil {
			return err
		}
	}
	answer := make([]byte, 1<<10)
	for len(c.sent) > 0 {
		if err := c.conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
			return err
		}
		n, err := c.conn.Read(answer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.lost += len(c.sent)
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.take(answer[:n]); err != nil {
			return err
		}
		if time.Now().Before(until) {
			if err := c.ask(); err != nil {
				return err
			}
		}
	}
	return nil
}

// ask sends "c NUMBER xxx...".
func (c *client) ask() error {
	c.next++
	b := append(make([]byte, 0, c.size), "c "...)
	b = append(strconv.AppendInt(b, int64(c.next), 10), ' ')
	b = append(b, bytes.Repeat([]byte("x"), max(c.size-len(b), 0))...)
	c.sent[c.next] = time.Now()
	_, err := c.conn.Write(b)
	return err
}

// take takes "c NUMBER COUNT CHAIN".
func (c *client) take(answer []byte) error {
	words := bytes.Fields(answer)
	if len(words) < 2 {
		return fmt.Errorf("answer %q", answer)
	}
	n, err := strconv.Atoi(string(words[1]))
	if err != nil {
		return fmt.Errorf("answer %q: %w", answer, err)
	}
	at, ok := c.sent[n]
	if !ok {
		return fmt.Errorf("answer %q to request %d, which waits for none", answer, n)
	}
	delete(c.sent, n)
	c.took = append(c.took, bench.Millis(time.Since(at)))
	return nil
}
