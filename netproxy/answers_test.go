package netproxy

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// TestOrderOfAnswers: sessions wait for a lock, and in its second life the server
// gives it to them in the order in which they ask, as it had not in its first. The
// replay ends when nothing moves any more; by the order of answers it succeeds.
func TestOrderOfAnswers(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			r := newRigWith(t, kind, journal.Options{}, func(o *Options) { o.Idle = func() bool { return true } })
			ctx := context.Background()
			// One that asks later gets the lock first: it is slow to ask for it.
			var asked atomic.Bool
			hesitant, bold := func() {
				if !asked.Swap(true) {
					time.Sleep(50 * time.Millisecond)
				}
			}, func() {}
			a := r.teller(locker(hesitant))
			var conns [2]*bufio.ReadWriter
			for i := range conns {
				c, err := r.dial(nstest.App4, tellerPort)
				require.NoError(t, err)
				defer c.Close()
				require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
				conns[i] = bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
			}
			say := func(i int, what string) {
				fmt.Fprintln(conns[i], what)
				require.NoError(t, conns[i].Flush())
			}
			hear := func(i int, want string) {
				got, err := conns[i].ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, want+"\n", got)
			}
			say(0, "lock")
			require.Eventually(t, asked.Load, soon, time.Millisecond)
			say(1, "lock")
			hear(1, "locked 1")
			say(1, "unlock")
			hear(1, "unlocked")
			hear(0, "locked 2")

			r.again(a.stop)
			a = r.teller(locker(bold))
			begun := time.Now()
			_, err := r.proxy.Replay(ctx, false)
			require.Error(t, err)
			require.Less(t, time.Since(begun), StallAfter/2)

			a.stop()
			require.NoError(t, r.proxy.Crash(ctx))
			reader, err := r.journal.NewReader(r.journal.Start())
			require.NoError(t, err)
			defer reader.Close()
			plan, err := replay.Build(reader, nil, nil)
			require.NoError(t, err)
			require.True(t, plan.HasAnswers())
			plan.ByAnswers()
			require.NoError(t, r.proxy.Rebuild(ctx, plan, nil))
			r.teller(locker(bold))
			res, err := r.proxy.Replay(ctx, false)
			require.NoError(t, err)
			require.Zero(t, res.Reset)
			say(1, "lock")
			say(0, "unlock")
			hear(0, "unlocked")
			hear(1, "locked 3")
		})
	}
}

// locker serves clients that share a lock, and numbers those that get it.
func locker(before func()) func(*teller, *net.TCPConn) {
	lock := make(chan struct{}, 1)
	n := 0
	return func(a *teller, c *net.TCPConn) {
		defer c.Close()
		for s := bufio.NewScanner(c); s.Scan(); {
			if s.Text() == "unlock" {
				fmt.Fprintln(c, "unlocked")
				<-lock
				continue
			}
			before()
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
