package netproxy

import (
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// TestMovingDataMakesNoGarbage: a container that answers requests for a day would
// otherwise have the collector run all day.
func TestMovingDataMakesNoGarbage(t *testing.T) {
	r := newRigWith(t, order.Tracepoint, journal.Options{}, func(o *Options) { o.Egress = true })
	r.start()
	conn := r.mustDial(nstest.App4)
	request, reply := []byte("PING\r\n"), make([]byte, len("+PONG\r\n"))
	ask := func(n int) {
		for range n {
			_, err := conn.c.Write(request)
			require.NoError(t, err)
			_, err = io.ReadFull(conn.r, reply)
			require.NoError(t, err)
		}
	}
	ask(100) // buffers reach their size
	const requests = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ask(requests)
	runtime.ReadMemStats(&after)
	// What else runs in this process makes some.
	require.Less(t, after.Mallocs-before.Mallocs, uint64(requests/4), "objects for %d requests", requests)
}
