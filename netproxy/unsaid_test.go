package netproxy

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
)

// quietAndLoud opens a connection to a bank for each client. That of the first one,
// "quiet", is used with its next line only; in a later life it is opened after the
// other one was used.
func quietAndLoud(to netip.AddrPort, later bool) func(*teller, *net.TCPConn) {
	used := make(chan struct{})
	charge := func(b *net.TCPConn, answers *bufio.Reader) string {
		fmt.Fprintln(b, "charge x")
		line, err := answers.ReadString('\n')
		if err != nil {
			return err.Error() + "\n"
		}
		return line
	}
	return func(a *teller, c *net.TCPConn) {
		defer c.Close()
		var b *net.TCPConn
		var answers *bufio.Reader
		for s := bufio.NewScanner(c); s.Scan(); {
			if b == nil {
				if later && s.Text() == "quiet" {
					select {
					case <-used:
					case <-a.ctx.Done():
						return
					}
				}
				var err error
				if b, err = a.dial(to); err != nil {
					return
				}
				answers = bufio.NewReader(b)
			}
			if s.Text() == "quiet" {
				fmt.Fprintln(c, "open")
				continue
			}
			fmt.Fprint(c, charge(b, answers))
			if s.Text() == "loud" {
				close(used)
			}
		}
	}
}

// TestOpenedAndNotUsed: a connection on which nothing had been said when the crash
// came may be another one the next time, and goes on with the server it had.
func TestOpenedAndNotUsed(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			r := newEgressRig(t, kind)
			b := r.bank(t)
			to := netip.AddrPortFrom(nstest.Client4, bankPort)
			a := r.teller(quietAndLoud(to, false))
			ask := func(c *net.TCPConn, line string) string {
				fmt.Fprintln(c, line)
				require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
				answer, err := bufio.NewReader(c).ReadString('\n')
				require.NoError(t, err, line)
				return answer
			}
			at := netip.AddrPortFrom(nstest.App4, tellerPort)
			quiet, loud := r.dialOK(at), r.dialOK(at)
			require.Equal(t, "open\n", ask(quiet, "quiet"))
			require.Equal(t, "charge x 1\n", ask(loud, "loud"))
			_, res := r.restart(a, quietAndLoud(to, true))
			require.Zero(t, res.Differing)
			require.Zero(t, res.Reset)
			require.Equal(t, "charge x 2\n", ask(quiet, "now"))
			require.Equal(t, "charge x 3\n", ask(loud, "again"))
			require.EqualValues(t, 3, b.charged.Load())
			require.EqualValues(t, 2, b.opened.Load())
		})
	}
}
