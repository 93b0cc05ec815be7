package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netns"
)

// ErrReply is returned for an error that Redis answered, or a reply that is
// none. The protocol is RESP,
// https://redis.io/docs/latest/develop/reference/protocol-spec/.
var ErrReply = errors.New("unexpected reply")

// replyTimeout is how long a reply may take.
const replyTimeout = 30 * time.Second

// Redis is a connection from the clients' network namespace. Its methods must
// not be called concurrently.
type Redis struct {
	net.Conn
	reader *bufio.Reader
}

// DialRedis connects.
func (r *Rig) DialRedis(addr netip.AddrPort) (*Redis, error) {
	var conn net.Conn
	err := r.inClient(func() (err error) {
		conn, err = (&net.Dialer{Timeout: replyTimeout}).Dial("tcp", addr.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Redis{conn, bufio.NewReaderSize(conn, 256<<10)}, nil
}

// NewRedis uses a connection.
func NewRedis(conn net.Conn) *Redis { return &Redis{conn, bufio.NewReader(conn)} }

// DialMany opens connections from the clients' network namespace. What was opened
// before an error is returned with it.
func (r *Rig) DialMany(addr netip.AddrPort, n int) (conns []net.Conn, err error) {
	err = r.inClient(func() error {
		d := net.Dialer{Timeout: replyTimeout}
		for range n {
			c, err := d.Dial("tcp", addr.String())
			if err != nil {
				return err
			}
			conns = append(conns, c)
		}
		return nil
	})
	return conns, err
}

// inClient runs f on a thread in the clients' namespace. A socket that f makes
// stays there; the thread is thrown away.
func (r *Rig) inClient(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			h, err := netns.GetFromPath(r.Env.Client().Path)
			if err != nil {
				return fmt.Errorf("clients' namespace: %w", err)
			}
			defer h.Close()
			if err := netns.Set(h); err != nil {
				return fmt.Errorf("enter the clients' namespace: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}

// Do sends a command and returns its reply, which may be a string or a number,
// as text.
func (c *Redis) Do(args ...string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
		return "", err
	}
	if _, err := c.Write(Command(args...)); err != nil {
		return "", err
	}
	line, n, err := c.head()
	if err != nil || n < 0 {
		return line, err
	}
	data := make([]byte, n+2)
	if _, err := io.ReadFull(c.reader, data); err != nil {
		return "", err
	}
	return string(data[:n]), nil
}

// Skip reads one reply and returns its length. It may be called while another
// goroutine writes commands.
func (c *Redis) Skip() (int, error) {
	line, n, err := c.head()
	if err != nil || n < 0 {
		return len(line), err
	}
	if _, err := c.reader.Discard(n + 2); err != nil {
		return 0, err
	}
	return n, nil
}

// Command is a command as it is sent.
func Command(args ...string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b
}

// head reads a whole reply of one line, with a length of -1, or the length of
// the string that follows.
func (c *Redis) head() (line string, n int, err error) {
	line, err = c.reader.ReadString('\n')
	if err != nil {
		return "", 0, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	switch {
	case strings.HasPrefix(line, "+") || strings.HasPrefix(line, ":"):
		return line[1:], -1, nil
	case strings.HasPrefix(line, "$"):
		if n, err = strconv.Atoi(line[1:]); err == nil && n >= 0 {
			return "", n, nil
		}
	}
	return "", 0, fmt.Errorf("%w: %q", ErrReply, line)
}
