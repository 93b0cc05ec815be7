package netproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// TestOrderOfAnswers: sessions wait for a lock, and in its second life the server
// gives it to them in the order in which they ask, as it had not in its first. The
// replay ends when nothing moves any more; by the order of answers it succeeds.
func TestOrderOfAnswers(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			var begun atomic.Int64 // a replay, which a busy machine is a while late with
			r := newRigWith(t, kind, journal.Options{}, func(o *Options) {
				o.Idle = func() bool { return time.Now().UnixNano()-begun.Load() > int64(time.Second) }
			})
			ctx := context.Background()
			// One that asks later gets the lock first: it is slow to ask for it.
			var asked atomic.Bool
			overtaken := make(chan struct{})
			hesitant := func(string, chan struct{}) {
				if !asked.Swap(true) {
					<-overtaken
				}
			}
			orderly := func(who string, lock chan struct{}) {
				for who == "1" && len(lock) == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			bold := func(string, chan struct{}) {}
			overtake := sync.OnceFunc(func() { close(overtaken) })
			defer overtake()
			a := r.teller(locker(hesitant))
			say, hear := r.talkers(2)
			say(0, "lock 0")
			require.Eventually(t, asked.Load, soon, time.Millisecond)
			say(1, "lock 1")
			hear(1, "locked 1")
			overtake()
			say(1, "unlock")
			hear(1, "unlocked")
			hear(0, "locked 2")

			r.again(a.stop)
			a = r.teller(locker(orderly))
			start := time.Now()
			begun.Store(start.UnixNano())
			_, err := r.proxy.Replay(ctx, false)
			require.Error(t, err)
			require.Less(t, time.Since(start), StallAfter/2)

			r.againBy(a.stop, func(plan *replay.Plan) {
				require.True(t, plan.HasAnswers())
				plan.ByAnswers()
			})
			r.teller(locker(bold))
			begun.Store(time.Now().UnixNano())
			res, err := r.proxy.Replay(ctx, false)
			require.NoError(t, err)
			require.Zero(t, res.Reset)
			say(1, "lock 1")
			say(0, "unlock")
			hear(0, "unlocked")
			hear(1, "locked 3")
		})
	}
}

// TestUnansweredLeavesTheLock: a session had asked for the lock when the application
// died and had not got it; it does not get it in the replay in place of the one that
// had.
func TestUnansweredLeavesTheLock(t *testing.T) {
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) { o.Idle = func() bool { return true } })
	asked := make(chan string, 4)
	given, released := make(chan struct{}), make(chan struct{})
	give, release := sync.OnceFunc(func() { close(given) }), sync.OnceFunc(func() { close(released) })
	defer release()
	defer give()
	a := r.teller(locker(func(who string, _ chan struct{}) {
		switch asked <- who; who {
		case "2":
			<-released
		case "unlock":
			<-given
		}
	}))
	say, hear := r.talkers(3)
	say(0, "lock 0")
	hear(0, "locked 1")
	say(1, "lock 1")
	require.Equal(t, "0", <-asked)
	require.Equal(t, "1", <-asked)
	say(0, "ping")
	hear(0, "pong")
	say(0, "unlock")
	require.Equal(t, "unlock", <-asked)
	say(2, "lock 2")
	require.Equal(t, "2", <-asked)
	give()
	hear(0, "unlocked")
	hear(1, "locked 2")
	release()

	r.againBy(a.stop, (*replay.Plan).ByAnswers)
	r.teller(locker(func(string, chan struct{}) {}))
	res, err := r.proxy.Replay(context.Background(), false)
	require.NoError(t, err)
	require.Zero(t, res.Reset)
	require.EqualValues(t, len("locked 1\npong\nunlocked\nlocked 2\n"), res.Swallowed)
	say(1, "unlock")
	hear(1, "unlocked")
	hear(2, "locked 3")
}

// talkers opens connections to the teller, and returns what says and expects a line
// on one of them.
func (r *rig) talkers(n int) (say, hear func(i int, line string)) {
	conns := make([]*bufio.ReadWriter, n)
	for i := range conns {
		c, err := r.dial(nstest.App4, tellerPort)
		require.NoError(r.t, err)
		r.t.Cleanup(func() { _ = c.Close() })
		require.NoError(r.t, c.SetDeadline(time.Now().Add(soon)))
		conns[i] = bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
	}
	say = func(i int, line string) {
		fmt.Fprintln(conns[i], line)
		require.NoError(r.t, conns[i].Flush())
	}
	hear = func(i int, line string) {
		got, err := conns[i].ReadString('\n')
		require.NoError(r.t, err)
		require.Equal(r.t, line+"\n", got)
	}
	return say, hear
}

// TestAnswerThatNeverComes: the application is at work all the time, and does not give
// the answer that it had given; the replay by the order of answers ends all the same.
func TestAnswerThatNeverComes(t *testing.T) {
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) {
		o.Idle, o.stallAfter = func() bool { return false }, 500*time.Millisecond
	})
	a := r.teller(func(_ *teller, c *net.TCPConn) { _, _ = io.Copy(c, c) })
	c, err := r.dial(nstest.App4, tellerPort)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
	_, err = io.WriteString(c, "hello")
	require.NoError(t, err)
	_, err = io.ReadFull(c, make([]byte, 5))
	require.NoError(t, err)
	r.againBy(a.stop, (*replay.Plan).ByAnswers)
	a = r.teller(func(_ *teller, c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	_, err = r.proxy.Replay(context.Background(), false)
	require.ErrorIs(t, err, ErrStalled)
	require.ErrorContains(t, err, "the answer of connection 1")
	a.stop()
}

// locker serves clients that share a lock, and numbers those that get it.
// before is called with who asks, or "unlock", and the lock.
func locker(before func(string, chan struct{})) func(*teller, *net.TCPConn) {
	lock := make(chan struct{}, 1)
	n := 0
	return func(a *teller, c *net.TCPConn) {
		defer c.Close()
		for s := bufio.NewScanner(c); s.Scan(); {
			if s.Text() == "ping" {
				fmt.Fprintln(c, "pong")
				continue
			}
			before(strings.TrimPrefix(s.Text(), "lock "), lock)
			if s.Text() == "unlock" {
				fmt.Fprintln(c, "unlocked")
				<-lock
				continue
			}
			select {
			case lock <- struct{}{}:
				n++
				fmt.Fprintf(c, "locked %d\n", n)
			case <-a.ctx.Done():
				return
			}
		}
	}
}
