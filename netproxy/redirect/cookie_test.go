package redirect_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
)

// cookiesTaken is how many connections of a namespace stand by the cookie of a SYN
// that nobody remembered.
func cookiesTaken(t testing.TB, ns int) (n int) {
	t.Helper()
	nstest.In(t, ns, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/netstat")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(b)) {
			values := strings.Fields(line) // lines with names and values take turns
			if i := slices.Index(names, "SyncookiesRecv"); i >= 0 {
				n, err = strconv.Atoi(values[i])
				return err
			}
			names = values
		}
		return fmt.Errorf("no SyncookiesRecv in %q", b)
	})
	return n
}

// TestSYNCookies: what ends a handshake that the kernel has forgotten reaches our
// listener, and not the application's.
func TestSYNCookies(t *testing.T) {
	for to, from := range map[string]string{"10.77.0.2:80": "10.77.0.1", "[fd77::2]:80": "fd77::1"} {
		g := newRig(t, nil)
		nstest.In(t, g.app, func() error {
			const always = "2"
			return os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte(always), 0)
		})
		g.listen("[::]:80")
		before := cookiesTaken(t, g.app)
		g.expect(g.client, to, from, true)
		// The leg's, over lo, is one, too.
		if got := cookiesTaken(t, g.app) - before; got != 2 {
			t.Errorf("%s: %d connections by cookie, want the client's and the leg's", to, got)
		}
	}
}
