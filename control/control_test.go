package control

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/status"
)

// shim is a handler that remembers.
type shim struct {
	pinned  map[string]bool
	begun   chan struct{}
	given   atomic.Bool // up
	refusal error
}

func (s *shim) Status(context.Context) (*status.Status, error) {
	return &status.Status{ID: "x", Protected: true}, nil
}

func (s *shim) Checkpoint(ctx context.Context, image bool) (*Made, error) {
	if s.refusal != nil {
		return nil, s.refusal
	}
	if s.begun != nil {
		close(s.begun)
		<-ctx.Done()
		s.given.Store(true)
		return nil, ctx.Err()
	}
	m := &Made{Checkpoint: status.Checkpoint{Sequence: 7}}
	if image {
		m.Image = &status.Image{Name: "n"}
	}
	return m, nil
}

func (s *shim) Images(context.Context) ([]Image, error) { return []Image{{Sequence: 3}}, nil }

func (s *shim) Pin(_ context.Context, tag string, pinned bool) error {
	s.pinned[tag] = pinned
	return nil
}

// serve listens below a path that is too long for a socket's address.
func serve(t *testing.T, s *shim) (*Server, *Client) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 100))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	server, err := Serve(dir, s)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	return server, &Client{Dir: dir}
}

func TestRequests(t *testing.T) {
	s := &shim{pinned: map[string]bool{}}
	server, c := serve(t, s)
	fi, err := os.Stat(filepath.Join(c.Dir, SocketName))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), fi.Mode().Perm())
	st, err := c.Status(t.Context())
	require.NoError(t, err)
	require.True(t, st.Protected)
	for _, image := range []bool{true, false} {
		made, err := c.Checkpoint(t.Context(), image)
		require.NoError(t, err)
		require.EqualValues(t, 7, made.Checkpoint.Sequence)
		require.Equal(t, image, made.Image != nil)
	}
	list, err := c.Images(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Image{{Sequence: 3}}, list)
	require.NoError(t, c.Pin(t.Context(), "3", true))
	require.NoError(t, c.Pin(t.Context(), "4-abc", false))
	require.Equal(t, map[string]bool{"3": true, "4-abc": false}, s.pinned)
	s.refusal = errors.New("unprotected: because")
	_, err = c.Checkpoint(t.Context(), false)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "unprotected: because")

	require.NoError(t, server.Close())
	_, err = c.Status(t.Context())
	require.ErrorIs(t, err, ErrUnreachable)
	require.NoFileExists(t, filepath.Join(c.Dir, SocketName))
}

// TestGivenUp: a client that goes, and a server that ends, take the work with them.
func TestGivenUp(t *testing.T) {
	for _, who := range []string{"client", "server"} {
		s := &shim{begun: make(chan struct{})}
		server, c := serve(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		failed := make(chan error, 1)
		go func() {
			_, err := c.Checkpoint(ctx, false)
			failed <- err
		}()
		<-s.begun
		if who == "client" {
			cancel()
			require.ErrorIs(t, <-failed, context.Canceled)
		} else {
			require.NoError(t, server.Close())
			require.Error(t, <-failed)
		}
		require.Eventually(t, s.given.Load, time.Minute, time.Millisecond, who)
	}
}

// TestBadClients: nonsense is refused; who says nothing holds nobody up.
func TestBadClients(t *testing.T) {
	server, c := serve(t, &shim{})
	dial := func() *net.UnixConn {
		conn, err := net.DialUnix("unix", nil, socketIn(server.dir))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	for _, text := range []string{"\n", "{}\n", `{"op":"rm"}` + "\n", strings.Repeat("x", 2*maxRequest)} {
		conn := dial()
		_, err := conn.Write([]byte(text))
		require.NoError(t, err)
		answer := make([]byte, 200)
		n, _ := conn.Read(answer)
		require.Contains(t, string(answer[:n]), ErrBadRequest.Error(), text[:1])
	}
	for range maxClients - 2 {
		dial()
	}
	_, err := c.Status(t.Context())
	require.NoError(t, err)
}

func TestUnsafeDirectory(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o750))
	_, err := Serve(dir, &shim{})
	require.ErrorContains(t, err, "must be private")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	_, err = Serve(link, &shim{})
	require.Error(t, err)
}

// TestStaleSocket: what a killed shim left is replaced.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, SocketName), nil, 0o600))
	s, err := Serve(dir, &shim{})
	require.NoError(t, err)
	_, err = (&Client{Dir: dir}).Status(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	var none *Server
	require.NoError(t, none.Close())
}
