package redirect_test

import (
	"os"
	"testing"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
)

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
		before := nstest.Counter(t, g.app, nstest.CookiesTaken)
		g.expect(g.client, to, from, true)
		// The leg's, over lo, is one, too.
		if got := nstest.Counter(t, g.app, nstest.CookiesTaken) - before; got != 2 {
			t.Errorf("%s: %d connections by cookie, want the client's and the leg's", to, got)
		}
	}
}
