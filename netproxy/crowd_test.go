package netproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// lane is a pool of one session: who waits for it is served in an order of its own in the
// first life, and in another one later.
type lane struct {
	first   bool
	charged chan struct{} // closed in the first life, when the last one was
	open    sync.Once
	session *askingConn
	failed  error

	mu      sync.Mutex // guards what follows
	busy    bool
	waiting map[string]chan struct{} // by what they ask for
}

func (l *lane) enter(id string) {
	l.mu.Lock()
	if !l.busy {
		l.busy = true
		l.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	l.waiting[id] = turn
	l.mu.Unlock()
	<-turn
}

func (l *lane) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := slices.Sorted(maps.Keys(l.waiting))
	if len(ids) == 0 {
		l.busy = false
		return
	}
	next := ids[0]
	if l.first {
		next = ids[len(ids)-1]
	}
	close(l.waiting[next])
	delete(l.waiting, next)
}

// charge charges the bank over the session. There is another one, or they would not be told
// by what is said in them.
func (l *lane) charge(a *teller, id string) (string, error) {
	l.enter(id)
	defer l.leave()
	l.open.Do(func() {
		for range 2 {
			var c *net.TCPConn
			if c, l.failed = a.dial(netip.AddrPortFrom(nstest.Client4, bankPort)); l.failed != nil {
				return
			}
			l.session = &askingConn{c, bufio.NewReader(c)}
			if _, l.failed = l.session.ask("SELECT", "0"); l.failed != nil {
				return
			}
		}
	})
	if l.failed != nil {
		return "", l.failed
	}
	said, err := l.session.ask("INCR", id)
	if l.first && id == "3" {
		close(l.charged)
		<-a.ctx.Done()
	}
	return said, err
}

// TestCrowded: the one session of an application is given to new requests in its second
// life before the one that a recorded request was made on comes to it. They are put off,
// until it is.
func TestCrowded(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) { testCrowded(t, kind) })
	}
}

func testCrowded(t *testing.T, kind order.Kind) {
	r := newEgressRig(t, kind)
	var mu sync.Mutex
	charged, answer := map[string]int{}, make(chan struct{})
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		defer c.Close()
		for from := bufio.NewReader(c); ; {
			cmd, err := readCommand(from)
			if err != nil {
				return
			}
			if cmd[0] == "SELECT" {
				fmt.Fprint(c, "+OK\r\n")
				continue
			}
			if cmd[1] == "0" {
				<-answer
			}
			mu.Lock()
			charged[cmd[1]]++
			mu.Unlock()
			fmt.Fprint(c, ":1\r\n")
		}
	})
	app := func(l *lane) func(*teller, *net.TCPConn) {
		return func(a *teller, c *net.TCPConn) {
			defer c.Close()
			for s := bufio.NewScanner(c); s.Scan(); {
				if _, err := l.charge(a, s.Text()); err != nil {
					return // crashed, or it is seen by the client
				}
				fmt.Fprintln(c, "done", s.Text())
			}
		}
	}
	l := &lane{first: true, charged: make(chan struct{}), waiting: map[string]chan struct{}{}}
	a := r.teller(app(l))
	var clients []net.Conn
	for i := range 4 {
		c, err := r.dial(nstest.App4, tellerPort)
		require.NoError(t, err)
		defer c.Close()
		clients = append(clients, c)
		_, err = fmt.Fprintln(c, i)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.busy && len(l.waiting) == i
		}, soon, time.Millisecond)
	}
	says := func(i int) {
		t.Helper()
		_ = clients[i].SetReadDeadline(time.Now().Add(soon))
		line, err := bufio.NewReader(clients[i]).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("done %d\n", i), line)
	}
	close(answer)
	says(0)
	<-l.charged
	var vain []uint32
	late := false
	for try := 1; ; try++ {
		r.againBy(a.stop, func(plan *replay.Plan) {
			if late {
				require.True(t, plan.PutOff(vain))
			}
		})
		l = &lane{waiting: map[string]chan struct{}{}}
		a = r.teller(app(l))
		_, err := r.proxy.Replay(context.Background(), false)
		if err == nil {
			break
		}
		var crowded *CrowdedError
		require.True(t, errors.As(err, &crowded), "%v", err)
		require.ErrorIs(t, err, ErrDiverged)
		t.Logf("try %d: %v; %v", try, err, crowded.Vain)
		require.Less(t, try, 40)
		late, vain = true, append(vain, crowded.Vain...)
	}
	for i := range 3 {
		says(i + 1)
	}
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, map[string]int{"0": 1, "1": 1, "2": 1, "3": 1}, charged)
	a.stop()
}
