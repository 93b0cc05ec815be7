package criutest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RedisArgs starts a Redis without persistence on both IP versions.
var RedisArgs = []string{"/usr/bin/redis-server", "--port", "6379", "--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", "", "--appendonly", "no"}

// Redis is a connection to a Redis in a network namespace.
type Redis struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

// DialRedis connects to addr from inside the namespace, waiting for the server.
func DialRedis(t testing.TB, netns, addr string) *Redis {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var conn *net.TCPConn
	InNetNS(t, netns, func() error {
		for deadline := time.Now().Add(Patience); ; time.Sleep(10 * time.Millisecond) {
			if conn, err = net.DialTCP("tcp", nil, a); err == nil || time.Now().After(deadline) {
				return err
			}
		}
	})
	t.Cleanup(func() { conn.Close() })
	c := &Redis{TCPConn: conn, t: t, r: bufio.NewReader(conn)}
	for c.Do("PING") != "PONG" { // LOADING
		time.Sleep(10 * time.Millisecond)
	}
	return c
}

// Do sends a command and returns its reply, of any simple type, as text.
func (c *Redis) Do(args ...string) string {
	c.t.Helper()
	reply, err := c.Try(args...)
	if err != nil {
		c.t.Fatalf("redis %v: %v", args, err)
	}
	return reply
}

// Try is Do that does not fail the test.
func (c *Redis) Try(args ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		return "", err
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSpace(line)
	if line[0] != '$' {
		return line[1:], nil
	}
	n, err := strconv.Atoi(line[1:])
	if err != nil || n < 0 {
		return "", err
	}
	buf := make([]byte, n+2)
	_, err = io.ReadFull(c.r, buf)
	return string(buf[:n]), err
}

// Reset ends the connection with a RST, so that no socket of it stays behind in
// the kernel: its four-tuple would keep a restore from connecting again.
func (c *Redis) Reset() {
	c.t.Helper()
	if err := c.SetLinger(0); err != nil {
		c.t.Fatal(err)
	}
	c.Close()
}
