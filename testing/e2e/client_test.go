package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/load"
)

const (
	redisPort = 6379
	appPort   = 7000
)

// client is one connection that lives as long as the test wants.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// connect connects from the clients' namespace, and repeats until somebody
// listens.
func (c *container) connect(addr netip.AddrPort) *client {
	c.t.Helper()
	var conn net.Conn
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := env.InNetns(c.e.Client().Path, func() (err error) {
			conn, err = net.DialTimeout("tcp", addr.String(), patience)
			return err
		})
		if err == nil {
			break
		}
		require.True(c.t, time.Now().Before(deadline), "connect: %v", err)
	}
	k := &client{c.t, conn, bufio.NewReader(conn)}
	c.t.Cleanup(k.close)
	return k
}

// dial connects to the Redis in the container and makes sure that it answers.
func (c *container) dial() *client {
	c.t.Helper()
	k := c.connect(netip.AddrPortFrom(c.pod.IP4, redisPort))
	require.Equal(c.t, "PONG", k.do("PING"))
	return k
}

// dialApp connects to the test application.
func (c *container) dialApp() *client {
	c.t.Helper()
	return c.connect(netip.AddrPortFrom(c.pod.IP4, appPort))
}

func (k *client) close() { k.conn.Close() }

// do sends a command to Redis and returns the reply, which must not be an error.
func (k *client) do(words ...string) string {
	k.t.Helper()
	reply, err := k.try(words...)
	require.NoError(k.t, err, "%.60q", words)
	return reply
}

func (k *client) try(words ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return k.exchange(b.String())
}

// exchange sends bytes and reads one reply of RESP 2, of the kinds that are not
// arrays.
func (k *client) exchange(request string) (string, error) {
	if err := k.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := k.conn.Write([]byte(request)); err != nil {
		return "", err
	}
	line, err := k.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSpace(line)
	switch line[0] {
	case '+', ':':
		return line[1:], nil
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return "", err
		}
		value := make([]byte, n+2)
		_, err = readFull(k.r, value)
		return string(value[:n]), err
	}
	return "", fmt.Errorf("reply %q", line)
}

func readFull(r *bufio.Reader, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := r.Read(b[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// ask sends a line to the test application and returns the line it answers.
func (k *client) ask(line string) string {
	k.t.Helper()
	require.NoError(k.t, k.conn.SetDeadline(time.Now().Add(patience)))
	_, err := k.conn.Write([]byte(line + "\n"))
	require.NoError(k.t, err)
	answer, err := k.r.ReadString('\n')
	require.NoError(k.t, err)
	return strings.TrimSpace(answer)
}

// drive loads the container's Redis until finish, or the end of the test; the
// options' target and namespace are filled in if they are missing.
func (c *container) drive(o load.Options) *load.Load {
	c.t.Helper()
	if o.Netns == "" {
		o.Netns = c.e.Client().Path
	}
	if !o.Target.IsValid() {
		o.Target = netip.AddrPortFrom(c.pod.IP4, redisPort)
	}
	l, err := load.Start(context.Background(), o)
	require.NoError(c.t, err)
	c.t.Cleanup(l.Abandon)
	return l
}

// finish ends a load and asserts that no client noticed anything but time.
func (c *container) finish(l *load.Load) load.Result {
	c.t.Helper()
	r, err := l.Stop(context.Background())
	require.NoError(c.t, err)
	require.True(c.t, r.Clean(), "clients noticed: %+v", withoutTimes(r))
	require.NotZero(c.t, r.Acknowledged)
	return r
}

func withoutTimes(r load.Result) load.Result {
	r.LongestMS = nil
	return r
}

// errTimeout is what a deadline makes of a read.
var errTimeout = os.ErrDeadlineExceeded
