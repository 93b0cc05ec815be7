package lifecycle

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/containerd/fifo"
)

// parseURI reads where a stream goes: a plain path is a fifo (or a file that is
// there), otherwise fifo://, file:// or binary://.
func parseURI(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("parse stdio URI: %w", err)
	}
	if u.Scheme == "" {
		u.Scheme = "fifo"
	}
	switch u.Scheme {
	case "fifo", "file", "binary":
		return u, nil
	}
	return nil, fmt.Errorf("unknown STDIO scheme %s", u.Scheme)
}

// createLog makes sure that the file of a file:// URI exists.
func createLog(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// openSink opens a fifo or a file for writing. It waits, as long as ctx lets
// it, for a fifo's reader.
func openSink(ctx context.Context, path string) (io.WriteCloser, error) {
	isFifo, err := fifo.IsFifo(path)
	if err != nil {
		return nil, err
	}
	if !isFifo {
		return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	}
	w, err := fifo.OpenFifo(ctx, path, syscall.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open fifo %s: %w", path, err)
	}
	r, err := fifo.OpenFifo(ctx, path, syscall.O_RDONLY, 0)
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("open fifo %s: %w", path, err)
	}
	return &fifoSink{WriteCloser: w, reader: r}, nil
}

// fifoSink holds a reader too: the container must not get EPIPE while no client
// is attached.
type fifoSink struct {
	io.WriteCloser
	reader io.Closer
}

func (s *fifoSink) Close() error {
	err := s.WriteCloser.Close()
	if rerr := s.reader.Close(); err == nil {
		err = rerr
	}
	return err
}

// sharedSink is one file for two streams; the last of them closes it.
type sharedSink struct {
	io.WriteCloser
	mu    sync.Mutex
	users int // guarded by mu
}

func (s *sharedSink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users > 0 {
		return nil
	}
	return s.WriteCloser.Close()
}
