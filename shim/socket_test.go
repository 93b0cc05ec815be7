package shim

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestSocketOfALivingShim: a shim that is too busy to be talked to is no dead
// one.
func TestSocketOfALivingShim(t *testing.T) {
	ctx := namespaces.WithNamespace(context.Background(), "test")
	dir := t.TempDir()
	first, err := listen(ctx, "daemon", "group", dir, false)
	require.NoError(t, err)
	path := first.listener.Addr().String()
	require.True(t, served(ctx, first.address))
	// A queue for one connection, which is full then.
	raw, err := first.listener.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) }))
	require.NoError(t, err)
	for err == nil {
		var c net.Conn
		if c, err = net.Dial("unix", path); err == nil {
			defer c.Close()
		}
	}
	require.ErrorIs(t, err, unix.EAGAIN)
	again, err := listen(ctx, "daemon", "group", dir, false)
	require.ErrorIs(t, err, errdefs.ErrAlreadyExists)
	require.Equal(t, first.address, again.address)

	// One that was killed leaves the file.
	first.listener.SetUnlinkOnClose(false)
	require.NoError(t, first.listener.Close())
	require.NoError(t, first.file.Close())
	require.FileExists(t, path)
	require.False(t, served(ctx, first.address))
	next, err := listen(ctx, "daemon", "group", dir, false)
	require.NoError(t, err)
	require.True(t, served(ctx, next.address))
	failed := errors.New("the shim did not start")
	next.settle(&failed)
	require.NoFileExists(t, path)
	require.False(t, served(ctx, next.address))
}
