package nstest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Counters of TCP in a namespace.
const (
	// CookiesTaken counts connections that stand by the cookie of a SYN that nobody
	// remembered.
	CookiesTaken = "SyncookiesRecv"
	// HandshakesReset counts SYNs whose answer was answered with a reset.
	HandshakesReset = "EmbryonicRsts"
)

// Counter reads one of /proc/net/netstat.
func Counter(t testing.TB, ns int, name string) (n int) {
	t.Helper()
	In(t, ns, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/netstat")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(b)) {
			values := strings.Fields(line) // lines with names and values take turns
			if i := slices.Index(names, name); i >= 0 {
				n, err = strconv.Atoi(values[i])
				return err
			}
			names = values
		}
		return fmt.Errorf("no %s in %q", name, b)
	})
	return n
}
