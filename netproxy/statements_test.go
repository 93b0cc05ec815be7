package netproxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// pgMessage is one of PostgreSQL's protocol.
func pgMessage(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))) + body
}

func readPGMessage(from *bufio.Reader) (kind byte, body string, err error) {
	var head [5]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return 0, "", err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	_, err = io.ReadFull(from, b)
	return head[0], string(b), err
}

// statements is a server that has a little of PostgreSQL: it tells which statement it
// was asked to execute. A query that is slow is told of, and has its answer when there is
// something to be had from goOn. It returns how many statements it has executed.
func (r *rig) statements(slow chan<- struct{}, goOn <-chan struct{}) *atomic.Int32 {
	executed := new(atomic.Int32)
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		defer c.Close()
		from := bufio.NewReader(c)
		var head [8]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return
		}
		fmt.Fprint(c, pgMessage('R', askPassword))
		if kind, _, err := readPGMessage(from); err != nil || kind != 'p' {
			return
		}
		fmt.Fprint(c, pgMessage('R', "\x00\x00\x00\x00")+pgMessage('Z', "I"))
		prepared, bound := map[string]string{}, ""
		for {
			kind, body, err := readPGMessage(from)
			if err != nil {
				return
			}
			fields := strings.Split(body, "\x00")
			switch kind {
			case 'P':
				prepared[fields[0]] = fields[1]
			case 'B':
				bound = prepared[fields[1]]
			case 'E':
				executed.Add(1)
				fmt.Fprint(c, pgMessage('C', bound+"\x00"))
			case 'Q', 'S':
				if body == "SELECT slow\x00" {
					slow <- struct{}{}
					<-goOn
				}
				fmt.Fprint(c, pgMessage('Z', "I"))
			}
		}
	})
	return executed
}

// askPassword is what the server says for a password as it is.
const askPassword = "\x00\x00\x00\x03"

type pgSession struct {
	net.Conn
	from *bufio.Reader
}

// ask returns what the server says that it has executed.
func (s *pgSession) ask(text string) (executed string, err error) {
	if _, err := io.WriteString(s, text); err != nil {
		return "", err
	}
	for {
		kind, body, err := readPGMessage(s.from)
		if err != nil || kind == 'Z' {
			return executed, err
		}
		switch {
		case kind == 'C':
			executed = strings.TrimSuffix(body, "\x00")
		case kind == 'R' && body == askPassword:
			if _, err := io.WriteString(s, pgMessage('p', "secret\x00")); err != nil {
				return "", err
			}
		}
	}
}

// openPG opens a session in which a statement is prepared by the name that each other
// session has another one by.
func openPG(a *teller, sql string) (*pgSession, error) {
	c, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
	if err != nil {
		return nil, err
	}
	s := &pgSession{c, bufio.NewReader(c)}
	if _, err = s.ask("\x00\x00\x00\x08\x00\x03\x00\x00"); err == nil {
		_, err = s.ask(pgMessage('P', "1\x00"+sql+"\x00\x00\x00") + pgMessage('S', ""))
	}
	return s, err
}

// TestStatementsOfASession: a request that has nothing to do with prepared statements is
// made on another session in the second life. Each session goes on with its own all the
// same.
func TestStatementsOfASession(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			r := newEgressRig(t, kind)
			r.statements(nil, nil)
			app := func(last int) func(*teller, *net.TCPConn) {
				return func(a *teller, c *net.TCPConn) {
					defer c.Close()
					var pool [2]*pgSession
					for s := bufio.NewScanner(c); s.Scan(); {
						said, err := play(a, &pool, last, s.Text())
						if err != nil {
							return // crashed, or it is seen by the client
						}
						fmt.Fprintln(c, said)
					}
				}
			}
			a := r.teller(app(0))
			c, err := r.dial(nstest.App4, tellerPort)
			require.NoError(t, err)
			defer c.Close()
			from := bufio.NewReader(c)
			ask := func(text string) string {
				_, err := fmt.Fprintln(c, text)
				require.NoError(t, err)
				line, err := from.ReadString('\n')
				require.NoError(t, err)
				return strings.TrimSpace(line)
			}
			require.Equal(t, "ready", ask("prepare"))
			r.again(a.stop)
			a = r.teller(app(1))
			res, err := r.proxy.Replay(context.Background(), false)
			require.NoError(t, err)
			require.Zero(t, res.Reset)
			require.Equal(t, "SELECT 0, SELECT 1", ask("execute"))
			a.stop()
		})
	}
}

// TestStatementsBehindARepeat: the server has not answered a request when the application
// crashes, and that makes it again after the replay. It goes on with the session that it
// was made in only where the same statements are prepared.
func TestStatementsBehindARepeat(t *testing.T) {
	for again, goesOn := range map[int]bool{0: true, 1: false} {
		t.Run(fmt.Sprintf("goes on %v", goesOn), func(t *testing.T) {
			r := newEgressRig(t, order.Auto)
			slow, goOn := make(chan struct{}, 2), make(chan struct{}, 2)
			r.statements(slow, goOn)
			idle := func(_ *teller, c *net.TCPConn) { c.Close() }
			open := func(a *teller) (pool [2]*pgSession) {
				for i := range pool {
					var err error
					pool[i], err = openPG(a, fmt.Sprintf("SELECT %d", i))
					require.NoError(t, err)
				}
				return pool
			}
			a := r.teller(idle)
			first := open(a)[0]
			lost := make(chan error, 1)
			go func() {
				_, err := first.ask(pgMessage('Q', "SELECT slow\x00"))
				lost <- err
			}()
			<-slow
			r.again(a.stop)
			require.Error(t, <-lost)
			a = r.teller(idle)
			_, err := r.proxy.Replay(context.Background(), false)
			require.NoError(t, err)
			s := open(a)[again]
			goOn <- struct{}{}
			_, err = s.ask(pgMessage('Q', "SELECT slow\x00"))
			require.Empty(t, slow, "the server is not asked twice")
			if !goesOn {
				require.Error(t, err, "it is on another session, which the application must know")
				return
			}
			require.NoError(t, err)
			for range 2 {
				said, err := s.ask(pgMessage('B', "\x001\x00\x00\x00\x00\x00\x00\x00") + pgMessage('E', "\x00\x00\x00\x00\x00") + pgMessage('S', ""))
				require.NoError(t, err)
				require.Equal(t, fmt.Sprintf("SELECT %d", again), said)
			}
			a.stop()
		})
	}
}

// TestExecutedWithItsStatement: what drivers execute together with the preparation of its
// statement, or with a statement that has no name, changes its session and the data. The
// application does it once more in a replay, on another session: the server is asked for
// that once more, and no more than that.
func TestExecutedWithItsStatement(t *testing.T) {
	execute := pgMessage('E', "\x00\x00\x00\x00\x00") + pgMessage('S', "")
	for what, insert := range map[string][]string{
		"at once": {pgMessage('P', "2\x00INSERT\x00\x00\x00") + pgMessage('B', "\x002\x00\x00\x00\x00\x00\x00\x00") + execute},
		"without a name": {
			pgMessage('P', "\x00INSERT\x00\x00\x00") + pgMessage('S', ""),
			pgMessage('B', "\x00\x00\x00\x00\x00\x00\x00\x00") + execute,
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newEgressRig(t, order.Auto)
			executed := r.statements(nil, nil)
			idle := func(_ *teller, c *net.TCPConn) { c.Close() }
			open := func(a *teller) (pool [2]*pgSession) {
				for i := range pool {
					var err error
					pool[i], err = openPG(a, "SELECT 1")
					require.NoError(t, err)
				}
				return pool
			}
			do := func(s *pgSession) error {
				for _, text := range insert {
					if said, err := s.ask(text); err != nil || text == insert[len(insert)-1] && said != "INSERT" {
						return fmt.Errorf("%q: %w", said, err)
					}
				}
				return nil
			}
			a := r.teller(idle)
			require.NoError(t, do(open(a)[0]))
			require.EqualValues(t, 1, executed.Load())
			r.again(a.stop)
			a = r.teller(idle)
			again := make(chan error, 1)
			go func() {
				for _, s := range open(a) {
					if err := do(s); err != nil {
						again <- err
						return
					}
				}
				again <- nil
			}()
			r.awaitOpening()
			_, err := r.proxy.Replay(context.Background(), false)
			require.NoError(t, err)
			require.NoError(t, <-again)
			require.EqualValues(t, 2, executed.Load())
			a.stop()
		})
	}
}

// awaitOpening waits until the application begins to open a connection to a server.
func (r *rig) awaitOpening() {
	require.Eventually(r.t, func() bool {
		n := 0
		err := r.proxy.do(context.Background(), "look", func() error {
			n = len(r.proxy.egress.syns)
			return nil
		})
		return err == nil && n > 0
	}, time.Minute, time.Millisecond)
}

// play does what a client asks of the application: last is the session on which it makes
// its last request that has nothing to do with statements.
func play(a *teller, pool *[2]*pgSession, last int, text string) (said string, err error) {
	if text == "prepare" {
		for i := range pool {
			if pool[i], err = openPG(a, fmt.Sprintf("SELECT %d", i)); err != nil {
				return "", err
			}
		}
		for _, i := range [...]int{0, last} {
			if _, err := pool[i].ask(pgMessage('Q', "BEGIN; COMMIT\x00")); err != nil {
				return "", err
			}
		}
		return "ready", nil
	}
	var list []string
	for _, s := range pool {
		sql, err := s.ask(pgMessage('B', "\x001\x00\x00\x00\x00\x00\x00\x00") + pgMessage('E', "\x00\x00\x00\x00\x00") + pgMessage('S', ""))
		if err != nil {
			return "", err
		}
		list = append(list, sql)
	}
	return strings.Join(list, ", "), nil
}
