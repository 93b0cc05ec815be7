package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"
)

// retryPause keeps a client from spinning against a server that refuses.
const retryPause = 50 * time.Millisecond

// tally is what a client knows about one key.
type tally struct {
	key       string
	request   []byte
	last      int64 // the last reply
	acked     int64 // replies received
	open      int64 // requests on the present connection without a reply yet
	slack     int64 // requests since the last reply whose connection failed
	uncertain int64 // requests whose connection failed before the reply
}

// client runs on one goroutine; the others read its fields after it ended.
type client struct {
	l           *Load
	conn        net.Conn
	reader      *bufio.Reader
	own, shared tally
	onConn      int // requests on the present connection
	sharedNext  bool
	batch       []*tally
	out         []byte

	latency histogram
	longest time.Duration
	wrong   []error // the first few
	failed  []error // the first few
	nWrong  int64
	nFailed int64
	nReset  int64
}

func newClient(l *Load, n int) *client {
	key := func(name string) tally {
		k := l.o.Prefix + ":" + name
		return tally{key: k, request: fmt.Appendf(nil, "*2\r\n$4\r\nINCR\r\n$%d\r\n%s\r\n", len(k), k)}
	}
	return &client{l: l, own: key(strconv.Itoa(n)), shared: key("shared")}
}

// run sends batches until the load stops.
func (c *client) run() {
	var pause time.Duration
	if c.l.o.Rate > 0 {
		pause = time.Duration(float64(c.l.o.Connections*c.l.o.Pipeline) / c.l.o.Rate * float64(time.Second))
	}
	next := time.Now()
	for !c.l.stopping.Load() {
		if pause > 0 {
			next = next.Add(pause)
			if late := time.Since(next); late > 0 {
				next = time.Now()
			}
			if !c.sleep(time.Until(next)) {
				return
			}
		}
		if err := c.round(); err != nil {
			c.fail(err)
			c.sleep(retryPause)
		}
	}
}

// sleep returns false when the load stops meanwhile.
func (c *client) sleep(d time.Duration) bool {
	const step = 20 * time.Millisecond
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if left <= 0 || c.l.stopping.Load() {
			return !c.l.stopping.Load()
		}
		time.Sleep(min(left, step))
	}
}

// round makes sure there is a connection and sends one batch.
func (c *client) round() error {
	if c.conn != nil && c.l.o.ReconnectEvery > 0 && c.onConn >= c.l.o.ReconnectEvery {
		err := c.conn.Close()
		c.conn = nil
		if err != nil {
			return fmt.Errorf("close: %w", err)
		}
	}
	if c.conn == nil {
		if err := c.connect(context.Background()); err != nil {
			return err
		}
	}
	return c.exchange()
}

func (c *client) connect(ctx context.Context) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.l.o.Timeout)
	defer cancel()
	conn, err := c.l.dial.Dial(ctx, c.l.o.Target)
	c.waited(start)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	c.conn, c.onConn = conn, 0
	c.reader = bufio.NewReaderSize(conn, 4096)
	return nil
}

// exchange sends a batch and checks its replies.
func (c *client) exchange() error {
	c.batch, c.out = c.batch[:0], c.out[:0]
	for range c.l.o.Pipeline {
		t := &c.own
		if c.sharedNext {
			t = &c.shared
		}
		c.sharedNext = !c.sharedNext
		c.batch, c.out = append(c.batch, t), append(c.out, t.request...)
	}
	start := time.Now()
	if err := c.conn.SetDeadline(start.Add(c.l.o.Timeout)); err != nil {
		return err
	}
	for _, t := range c.batch {
		t.open++
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for _, t := range c.batch {
		n, err := readInteger(c.reader)
		if err != nil {
			return fmt.Errorf("reply: %w", err)
		}
		c.latency.add(c.waited(start))
		c.check(t, n)
		c.l.requests.Add(1)
	}
	c.onConn += len(c.batch)
	return nil
}

// check judges one reply.
func (c *client) check(t *tally, n int64) {
	t.acked++
	t.open--
	switch {
	case n <= t.last:
		c.complain("%s: reply %d after %d", t.key, n, t.last)
	case t == &c.own && n > t.last+1+t.slack:
		c.complain("%s: reply %d after %d", t.key, n, t.last)
	case t == &c.shared && !c.l.shared.add(n):
		c.complain("%s: reply %d was given before", t.key, n)
	}
	t.last, t.slack = n, 0
}

// waited records that the client waited since start, and for how long.
func (c *client) waited(start time.Time) time.Duration {
	now := time.Now()
	d := now.Sub(start)
	c.longest = max(c.longest, d)
	c.l.windows.add(now, d)
	return d
}

const keepErrors = 5

func (c *client) complain(format string, args ...any) {
	c.nWrong++
	if len(c.wrong) < keepErrors {
		c.wrong = append(c.wrong, fmt.Errorf(format, args...))
	}
}

// fail counts an error that the client saw and gives the connection up. Its
// open requests may or may not be applied.
func (c *client) fail(err error) {
	c.nFailed++
	c.l.errors.Add(1)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		c.nReset++
	}
	if len(c.failed) < keepErrors {
		c.failed = append(c.failed, fmt.Errorf("%s: %s: %w", time.Now().Format("15:04:05.000"), c.own.key, err))
	}
	for _, t := range []*tally{&c.own, &c.shared} {
		t.uncertain += t.open
		t.slack += t.open
		t.open = 0
	}
	if c.conn != nil {
		c.conn.Close() // it failed already
		c.conn = nil
	}
}
