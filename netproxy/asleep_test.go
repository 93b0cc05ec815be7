package netproxy

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// TestNothingComes: an application that sleeps, and does not do again what the
// replay waits for, is not waited for long, whatever it has opened instead.
func TestNothingComes(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) { nothingComes(t, kind, 0) })
		t.Run(name+"/opens others", func(t *testing.T) { nothingComes(t, kind, 2) })
	}
}

func nothingComes(t *testing.T, kind order.Kind, opens int) {
	r := newRigWith(t, kind, journal.Options{}, func(o *Options) {
		o.Egress, o.Idle = true, func() bool { return true }
	})
	r.bank(t)
	asks := func(a *teller, c *net.TCPConn) {
		defer c.Close()
		for s := bufio.NewScanner(c); s.Scan(); {
			b, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
			if err != nil {
				return
			}
			fmt.Fprintln(b, s.Text())
			answer, err := bufio.NewReader(b).ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(c, answer)
		}
	}
	a := r.teller(asks)
	c, err := r.dial(nstest.App4, tellerPort)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
	fmt.Fprintln(c, "charge")
	got, err := bufio.NewReader(c).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "charge 1\n", got)

	r.again(a.stop)
	r.teller(func(a *teller, c *net.TCPConn) {
		for s := bufio.NewScanner(c); s.Scan(); {
			for range opens {
				_, _ = a.dial(netip.AddrPortFrom(nstest.Client4, bankPort)) // it ends with the teller
			}
		}
	})
	begun := time.Now()
	_, err = r.proxy.Replay(context.Background(), false)
	require.ErrorIs(t, err, ErrStalled)
	require.Less(t, time.Since(begun), StallAfter/2)
}

// TestTimerIsAwaited: what the application does by a timer comes in the replay as
// late as it had come, or later if the replay is late.
func TestTimerIsAwaited(t *testing.T) {
	const timer, late = time.Second, 1500 * time.Millisecond
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			var until atomic.Int64 // the application sleeps till then
			r := newRigWith(t, kind, journal.Options{}, func(o *Options) {
				o.Idle = func() bool { return time.Now().UnixNano() < until.Load() }
			})
			waits := func(before func()) func(*teller, *net.TCPConn) {
				return func(_ *teller, c *net.TCPConn) {
					defer c.Close()
					before()
					for s := bufio.NewScanner(c); s.Scan(); {
						if s.Text() == "wait" {
							at := time.Now().Add(timer)
							until.Store(at.UnixNano())
							time.Sleep(time.Until(at))
						}
						fmt.Fprintln(c, s.Text())
					}
				}
			}
			a := r.teller(waits(func() {}))
			c, err := r.dial(nstest.App4, tellerPort)
			require.NoError(t, err)
			defer c.Close()
			require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
			answers := bufio.NewReader(c)
			ask := func(what string) {
				fmt.Fprintln(c, what)
				got, err := answers.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, what+"\n", got)
			}
			for _, what := range []string{"begin", "wait", "go on"} {
				ask(what)
			}
			r.again(a.stop)
			r.teller(waits(func() { time.Sleep(late) }))
			res, err := r.proxy.Replay(context.Background(), false)
			require.NoError(t, err)
			require.Zero(t, res.Differing)
			require.Zero(t, res.Reset)
			require.Greater(t, res.Took, timer+late)
			ask("live")
		})
	}
}

// TestNothingComesOnMany: all connections together on which nothing comes are waited for
// about as long as one, while differences are tolerated.
func TestNothingComesOnMany(t *testing.T) {
	const connections = 6
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			r := newRigWith(t, kind, journal.Options{}, func(o *Options) {
				o.stallAfter, o.Idle = 300*time.Millisecond, func() bool { return false }
			})
			a := r.teller(func(_ *teller, c *net.TCPConn) {
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					fmt.Fprintln(c, s.Text())
				}
			})
			for range connections {
				c, err := r.dial(nstest.App4, tellerPort)
				require.NoError(t, err)
				defer c.Close()
				require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
				answers := bufio.NewReader(c)
				for range 2 {
					fmt.Fprintln(c, "hello")
					got, err := answers.ReadString('\n')
					require.NoError(t, err)
					require.Equal(t, "hello\n", got)
				}
			}
			r.again(a.stop)
			r.teller(func(_ *teller, c *net.TCPConn) {
				for s := bufio.NewScanner(c); s.Scan(); {
				}
			})
			res, err := r.proxy.Replay(context.Background(), true)
			require.NoError(t, err)
			require.Equal(t, connections, res.Reset)
			require.Less(t, res.Took, (connections-2)*strayLimit, "%+v", res)
		})
	}
}
