package lifecycle

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestUnreadInput: what a process has not read goes to its successor, also if the
// process had made room for more than a pipe has by default.
func TestUnreadInput(t *testing.T) {
	first, err := newPipe(true, 0, 0)
	require.NoError(t, err)
	defer first.close()
	size, err := unix.FcntlInt(first.container.Fd(), unix.F_SETPIPE_SZ, 4*copyBufferSize)
	require.NoError(t, err)
	typed := bytes.Repeat([]byte("typed ahead\n"), size/12)
	_, err = first.write(typed)
	require.NoError(t, err)
	left := first.retire()
	require.True(t, bytes.Equal(typed, left), "%d bytes of %d", len(left), len(typed))

	second, err := newPipe(true, 0, 0)
	require.NoError(t, err)
	defer second.close()
	require.NoError(t, second.feed(left)) // nobody reads yet
	second.end()
	got, err := io.ReadAll(second.container)
	require.NoError(t, err)
	require.True(t, bytes.Equal(typed, got), "%d bytes of %d", len(got), len(typed))
}
