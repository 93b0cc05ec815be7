package nstest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// CookiesTaken is how many connections of a namespace stand by the cookie of a SYN
// that nobody remembered.
func CookiesTaken(t testing.TB, ns int) (n int) {
	t.Helper()
	In(t, ns, func() error {
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
