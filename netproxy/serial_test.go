package netproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// sleepers say of an application that it sleeps, of another that it is at work, and
// nothing of a third.
var sleepers = map[string]func() bool{
	"asleep":  func() bool { return true },
	"busy":    func() bool { return false },
	"unknown": nil,
}

// TestReadsLater: an application asks a server, and waits for the answer, before it
// reads what its client has sent already. It does the same in a replay.
func TestReadsLater(t *testing.T) {
	asksFirst := func(a *teller, c *net.TCPConn) {
		defer c.Close()
		b, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
		if err != nil {
			return
		}
		answers := bufio.NewReader(b)
		fmt.Fprintln(b, "hello")
		greeting, err := answers.ReadString('\n')
		if err != nil {
			return
		}
		for s := bufio.NewScanner(c); s.Scan(); {
			fmt.Fprintf(c, "%s, %s", s.Text(), greeting)
		}
	}
	for name, kind := range kinds {
		for how, idle := range sleepers {
			if kind != order.Serial && idle != nil {
				continue
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				r := newRigWith(t, kind, journal.Options{}, func(o *Options) { o.Egress, o.Idle = true, idle })
				b := r.bank(t)
				a := r.teller(asksFirst)
				const clients = 3
				var conns [clients]net.Conn
				var answers [clients]*bufio.Reader
				ask := func(i int, what string) {
					fmt.Fprintln(conns[i], what)
					got, err := answers[i].ReadString('\n')
					require.NoError(t, err)
					require.Equal(t, fmt.Sprintf("%s, hello %d\n", what, i+1), got)
				}
				for i := range conns {
					c, err := r.dial(nstest.App4, tellerPort)
					require.NoError(t, err)
					defer c.Close()
					require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
					conns[i], answers[i] = c, bufio.NewReader(c)
					ask(i, "first")
				}
				_, res := r.restart(a, asksFirst)
				require.Zero(t, res.Differing)
				require.Zero(t, res.Reset)
				require.EqualValues(t, clients, b.charged.Load())
				for i := range conns {
					ask(i, "second")
				}
			})
		}
	}
}

// TestWantsMoreAtOnce: an application leaves what comes in its socket until it is as
// much as it wants, as with SO_RCVLOWAT.
func TestWantsMoreAtOnce(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			r := newRigWith(t, kind, journal.Options{}, func(o *Options) { o.Idle = sleepers["asleep"] })
			whole := func(_ *teller, c *net.TCPConn) {
				defer c.Close()
				raw, err := c.SyscallConn()
				if err != nil {
					return
				}
				b := make([]byte, 8)
				for {
					n := uint64(0)
					if err := raw.Control(func(fd uintptr) { n = unread(int(fd)) }); err != nil {
						return // crashed
					}
					if n < uint64(len(b)) {
						time.Sleep(time.Millisecond)
						continue
					}
					if _, err := io.ReadFull(c, b); err != nil {
						return
					}
					fmt.Fprintf(c, "%s\n", b)
				}
			}
			a := r.teller(whole)
			c, err := r.dial(nstest.App4, tellerPort)
			require.NoError(t, err)
			defer c.Close()
			answers := bufio.NewReader(c)
			ask := func() {
				require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
				for _, part := range []string{"01", "23", "45", "67"} {
					_, err := fmt.Fprint(c, part)
					require.NoError(t, err)
					time.Sleep(2 * time.Millisecond) // mostly a segment of its own
				}
				got, err := answers.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, "01234567\n", got)
			}
			ask()
			_, res := r.restart(a, whole)
			require.Zero(t, res.Differing)
			ask()
		})
	}
}

// TestTakesDatagramsLater: an application that leaves a datagram where it is gets
// others, and connections, all the same.
func TestTakesDatagramsLater(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			r := newRigWith(t, kind, journal.Options{}, func(o *Options) { o.Datagrams, o.Idle = true, sleepers["asleep"] })
			r.dead.Store(uint32(Alive))
			var sockets [2]*net.UDPConn
			var clients [2]net.Conn
			for i := range sockets {
				at := netip.AddrPortFrom(nstest.App4, uint16(7100+i))
				sockets[i], clients[i] = udpIn(t, r.app, at.String()), udpTo(t, r.client, at)
				require.NoError(t, sockets[i].SetDeadline(time.Now().Add(soon)))
			}
			r.teller(func(_ *teller, c *net.TCPConn) {
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					fmt.Fprintln(c, s.Text())
				}
			})
			b := make([]byte, 100)
			for _, what := range []string{"one", "two"} {
				fmt.Fprint(clients[0], what) // nobody reads it for now
				fmt.Fprint(clients[1], what)
				n, err := sockets[1].Read(b)
				require.NoError(t, err)
				require.Equal(t, what, string(b[:n]))
				c, err := r.dial(nstest.App4, tellerPort)
				require.NoError(t, err)
				defer c.Close()
				require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
				fmt.Fprintln(c, what)
				got, err := bufio.NewReader(c).ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, what+"\n", got)
			}
			for _, what := range []string{"one", "two"} {
				n, err := sockets[0].Read(b)
				require.NoError(t, err)
				require.Equal(t, what, string(b[:n]))
			}
		})
	}
}
