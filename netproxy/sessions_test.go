package netproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// sessionBank is a bank that speaks a little RESP: a charge counts in the database
// that its session has selected, at the end of its transaction.
type sessionBank struct {
	webBank // times are those of ids, and of databases in which no charge belongs
}

func (r *rig) sessionBank() *sessionBank {
	b := &sessionBank{webBank{times: map[string]int{}}}
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		defer c.Close()
		b.opened.Add(1)
		db, queued, from := "", "", bufio.NewReader(c)
		for {
			cmd, err := readCommand(from)
			if err != nil {
				return
			}
			switch cmd[0] {
			case "PING":
				fmt.Fprint(c, "+PONG\r\n")
			case "CLIENT":
				fmt.Fprint(c, "-ERR unknown subcommand\r\n")
			case "SELECT":
				db = cmd[1]
				fmt.Fprint(c, "+OK\r\n")
			case "MULTI":
				fmt.Fprint(c, "+OK\r\n")
			case "CHARGE":
				queued = cmd[1]
				fmt.Fprint(c, "+QUEUED\r\n")
			case "EXEC":
				b.mu.Lock()
				b.times[queued]++
				if !strings.HasPrefix(queued, db) {
					b.times["in another database"] += 2
				}
				b.mu.Unlock()
				fmt.Fprintf(c, "*1\r\n:%d\r\n", b.charged.Add(1))
			}
		}
	})
	return b
}

func readCommand(from *bufio.Reader) (cmd []string, err error) {
	for left := 1; left > 0; left-- {
		line, err := from.ReadString('\n')
		if err != nil {
			return nil, err
		}
		n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
		if err != nil {
			return nil, err
		}
		if line[0] == '*' {
			left = n + 1
			continue
		}
		text := make([]byte, n+2)
		if _, err := io.ReadFull(from, text); err != nil {
			return nil, err
		}
		cmd = append(cmd, string(text[:n]))
	}
	return cmd, nil
}

// sessions are a pool of connections to the bank, each with a database selected.
type sessions struct {
	a    *teller
	to   netip.AddrPort
	db   string
	room chan struct{} // as many as there may be
	sessionPool
	mu   sync.Mutex // guards idle and rng
	idle []*askingConn
	rng  *rand.Rand // says when it is asked whether the server is there
}

// sessionPool says how a pool deals with its sessions.
type sessionPool struct {
	most  int
	brief bool // it begins with a session that it closes
	// asks: whether the server is there, now and then before a session is used, unless
	// this is held: a session whose server has not answered that can't be used again.
	asks *sync.RWMutex
	// greets: which sessions tell the server of their client is another matter in each life.
	greets bool
}

type askingConn struct {
	net.Conn
	answers *bufio.Reader
}

// ask returns the last line of the answer.
func (c *askingConn) ask(args ...string) (line string, err error) {
	text := fmt.Sprintf("*%d\r\n", len(args))
	for _, a := range args {
		text += fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	for {
		if line, err = c.answers.ReadString('\n'); err != nil || line[0] != '*' {
			return strings.TrimSpace(line), err
		}
	}
}

func (s *sessions) take() (*askingConn, error) {
	s.room <- struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.idle); n > 0 {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		if s.asks != nil && s.rng.IntN(3) == 0 && s.asks.TryRLock() {
			defer s.asks.RUnlock()
			if said, err := c.ask("PING"); err != nil || said != "+PONG" {
				return nil, errors.Join(err, fmt.Errorf("PING: %q", said))
			}
		}
		return c, nil
	}
	if s.brief {
		c, err := s.open()
		if err != nil {
			return nil, err
		}
		s.brief = false
		c.Close()
	}
	return s.open()
}

func (s *sessions) open() (*askingConn, error) {
	b, err := s.a.dial(s.to)
	if err != nil {
		return nil, err
	}
	c := &askingConn{b, bufio.NewReader(b)}
	if said, err := c.ask("SELECT", s.db); err != nil || said != "+OK" {
		return nil, errors.Join(err, fmt.Errorf("SELECT: %q", said))
	}
	if s.greets && s.rng.IntN(2) == 0 {
		if said, err := c.ask("CLIENT", "MAINT_NOTIFICATIONS", "ON"); err != nil || !strings.HasPrefix(said, "-ERR ") {
			return nil, errors.Join(err, fmt.Errorf("CLIENT: %q", said))
		}
	}
	return c, nil
}

func (s *sessions) give(c *askingConn) {
	s.mu.Lock()
	s.idle = append(s.idle, c)
	s.mu.Unlock()
	<-s.room
}

// charge makes a transaction of three requests.
func (s *sessions) charge(id string) (total string, err error) {
	c, err := s.take()
	if err != nil {
		return "", err
	}
	defer s.give(c)
	for _, step := range []struct {
		ask  []string
		want string
	}{{[]string{"MULTI"}, "+OK"}, {[]string{"CHARGE", id}, "+QUEUED"}, {[]string{"EXEC"}, ":"}} {
		if total, err = c.ask(step.ask...); err != nil || !strings.HasPrefix(total, step.want) {
			return "", errors.Join(err, fmt.Errorf("%v: %q", step.ask, total))
		}
	}
	return total[1:], nil
}

// withSessions serves clients as counter does, over two pools to the bank.
func withSessions(to netip.AddrPort, pool sessionPool) func() func(*teller, *net.TCPConn) {
	life := uint64(0)
	return func() func(*teller, *net.TCPConn) {
		pools := [2]*sessions{}
		life++
		for i := range pools {
			pools[i] = &sessions{to: to, db: fmt.Sprint(i), room: make(chan struct{}, pool.most), sessionPool: pool, rng: rand.New(rand.NewPCG(life, uint64(i)))}
		}
		var once sync.Once
		return func(a *teller, c *net.TCPConn) {
			once.Do(func() { pools[0].a, pools[1].a = a, a })
			defer c.Close()
			for s := bufio.NewScanner(c); s.Scan(); {
				pool := pools[int(s.Text()[0]-'0')%2]
				total, err := pool.charge(pool.db + ":" + s.Text())
				if err != nil {
					if !a.dead.Load() {
						fmt.Fprintf(c, "error %v\n", err)
					}
					return
				}
				fmt.Fprintf(c, "done charge %s %s\n", s.Text(), total)
			}
		}
	}
}

// chargeThroughKills has clients charge through an application that is killed again and
// again, while it holds asks if there is one, and fails unless each charge comes once.
func (r *rig) chargeThroughKills(t *testing.T, b *webBank, app func() func(*teller, *net.TCPConn), clients, kills int, asks *sync.RWMutex) {
	t.Helper()
	a := r.teller(app())
	var served atomic.Int64
	stop := r.charge(clients, &served, &sync.RWMutex{})
	for range kills {
		awaitServed(t, &served, clients)
		if asks != nil {
			asks.Lock()
			a.stop()
			asks.Unlock()
		}
		var res ReplayResult
		a, res = r.restartAgain(a, app)
		require.Zero(t, res.Differing)
		require.Zero(t, res.Reset)
		t.Logf("%+v", res)
	}
	time.Sleep(100 * time.Millisecond)
	stop()
	require.Empty(t, b.doubled())
	require.Equal(t, served.Load(), b.charged.Load())
	t.Logf("%d charges over %d connections", b.charged.Load(), b.opened.Load())
}

// TestSessionPools: an application that takes any session of a pool for a transaction
// is recovered although it takes others in its second life, closes others, and asks at
// other times whether the server is there. Another pool's, to the same server, are never
// taken for them.
func TestSessionPools(t *testing.T) {
	for name, kind := range kinds {
		for what, pool := range map[string]sessionPool{
			"capped":              {most: 3},
			"for all":             {most: 8},
			"one is closed":       {most: 3, brief: true},
			"the server is asked": {most: 3, asks: &sync.RWMutex{}},
			"some greet":          {most: 8, greets: true},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				r := newEgressRig(t, kind)
				b := r.sessionBank()
				app := withSessions(netip.AddrPortFrom(nstest.Client4, bankPort), pool)
				r.chargeThroughKills(t, &b.webBank, app, 8, 4, pool.asks)
			})
		}
	}
}

// TestSessionThatBeginsWithARepeat: a session whose first request was answered from the
// record is told from others by what follows, as any; and nobody is answered from the
// record, nor is the server asked again, while it owes an earlier answer.
func TestSessionThatBeginsWithARepeat(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	var asked atomic.Int64
	goOn := make(chan struct{}, 1)
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		defer c.Close()
		db, from := "0", bufio.NewReader(c)
		for {
			cmd, err := readCommand(from)
			if err != nil {
				return
			}
			asked.Add(1)
			if cmd[0] == "SELECT" {
				db = cmd[1]
				fmt.Fprint(c, "+OK\r\n")
				continue
			}
			if cmd[1] == "slow" {
				<-goOn
			}
			fmt.Fprintf(c, "+%s of %s\r\n", cmd[1], db)
		}
	})
	defer close(goOn)
	idle := func(_ *teller, c *net.TCPConn) { c.Close() }
	a := r.teller(idle)
	open := func() *askingConn {
		c, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
		require.NoError(t, err)
		return &askingConn{c, bufio.NewReader(c)}
	}
	says := func(c *askingConn, want string, ask ...string) {
		t.Helper()
		said, err := c.ask(ask...)
		require.NoError(t, err)
		require.Equal(t, want, said)
	}
	for _, name := range []string{"a", "b", "c"} {
		says(open(), "+"+name+" of 0", "GET", name)
	}
	r.again(a.stop)
	a = r.teller(idle)
	_, err := r.proxy.Replay(context.Background(), false)
	require.NoError(t, err)
	c := open()
	says(c, "+a of 0", "GET", "a")
	require.EqualValues(t, 3, asked.Load(), "the server is not asked twice")
	says(c, "+OK", "SELECT", "1")
	says(c, "+b of 1", "GET", "b")
	c = open()
	_, err = io.WriteString(c, "*2\r\n$3\r\nGET\r\n$5\r\nquick\r\n*2\r\n$3\r\nGET\r\n$4\r\nslow\r\n")
	require.NoError(t, err)
	line, err := c.answers.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "+quick of 0\r\n", line)
	_, err = io.WriteString(c, "*2\r\n$3\r\nGET\r\n$1\r\nc\r\n")
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, c)
	require.ErrorIs(t, err, syscall.ECONNRESET)
	const all = 7 // with a, b, c; SELECT and b; quick and slow
	require.Eventually(t, func() bool { return asked.Load() == all }, soon, time.Millisecond)
	says(open(), "+c of 0", "GET", "c")
	require.EqualValues(t, all, asked.Load(), "the server is not asked twice")
	a.stop()
}

// TestManySessions: what would take too much memory to be told apart is like no other, and
// served as ever.
func TestManySessions(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	b := r.sessionBank()
	a := r.teller(func(_ *teller, c *net.TCPConn) { c.Close() })
	dial := func() *askingConn {
		c, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
		require.NoError(t, err)
		return &askingConn{c, bufio.NewReader(c)}
	}
	inside := func(look func()) {
		require.NoError(t, r.proxy.do(context.Background(), "look", func() error { look(); return nil }))
	}
	first := dial()
	_, err := first.ask("SELECT", "0")
	require.NoError(t, err)
	var taken int
	inside(func() {
		taken = r.proxy.egress.sessions
		r.proxy.egress.sessions += sessionsLimit
	})
	require.NotZero(t, taken)
	second := dial()
	for range 3 {
		for _, text := range []string{"MULTI", "CHARGE", "EXEC"} {
			_, err := second.ask(text, "0:x")
			require.NoError(t, err)
		}
	}
	require.EqualValues(t, 3, b.charged.Load())
	inside(func() {
		lost := 0
		for _, c := range r.proxy.conns {
			if c.session != nil && c.session.Lost() {
				lost++
			}
		}
		require.Equal(t, 1, lost)
		r.proxy.egress.sessions -= sessionsLimit
	})
	first.Close()
	second.Close()
	require.Eventually(t, func() (none bool) {
		inside(func() { none = len(r.proxy.conns) == 0 })
		return none
	}, soon, time.Millisecond)
	inside(func() { require.Zero(t, r.proxy.egress.sessions) })
	a.stop()
}
