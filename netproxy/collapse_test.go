package netproxy

import (
	"context"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// TestPanicIsContained: a defect in the loop ends the proxy. Its clients are
// told, the application lives, and new clients reach it directly.
func TestPanicIsContained(t *testing.T) {
	told := make(chan error, 1)
	r := newRigWith(t, order.Auto, journal.Options{}, func(o *Options) { o.OnCollapse = func(err error) { told <- err } })
	r.start()
	c := r.mustDial(nstest.App4)
	_, err := c.incr("k")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	err = r.proxy.do(ctx, "test", func() error {
		var broken *conn
		broken.id = 1
		return nil
	})
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorContains(t, <-told, "nil pointer")
	_, err = c.incr("k")
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.NoError(t, ctx.Err())
	n, err := r.mustDial(nstest.App4).incr("k")
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.ErrorIs(t, r.proxy.Crash(ctx), ErrClosed)
}
