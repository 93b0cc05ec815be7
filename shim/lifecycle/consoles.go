package lifecycle

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/containerd/console"
	"github.com/containerd/containerd/v2/pkg/stdio"
	"github.com/containerd/fifo"
)

// consoles serves the terminals of all processes from one epoll descriptor.
type consoles struct {
	epoller *console.Epoller
}

func newConsoles() (*consoles, error) {
	e, err := console.NewEpoller()
	if err != nil {
		return nil, fmt.Errorf("terminals: %w", err)
	}
	// Ends with the process: closing an epoll descriptor does not wake who waits
	// for it.
	go func() { _ = e.Wait() }()
	return &consoles{epoller: e}, nil
}

// terminal is a console whose output is being copied.
type terminal struct {
	console.Console
	epoll  *console.EpollConsole
	stdin  io.Closer // writing end of the client's fifo, nil without stdin
	logger *logger
	copied chan struct{}
	once   sync.Once // for close
	// hungUp: the descriptor leaves epoll once. A second time could hit another
	// terminal that has got its number.
	hungUp sync.Once
}

// open copies between master and the client's fifos, file or logging binary.
func (c *consoles) open(ctx context.Context, master console.Console, id, namespace string, want stdio.Stdio) (_ *terminal, retErr error) {
	ec, err := c.epoller.Add(master)
	if err != nil {
		return nil, err
	}
	t := &terminal{Console: ec, epoll: ec, copied: make(chan struct{})}
	defer func() {
		if retErr != nil {
			c.hangUp(t)
			t.close()
		}
	}()
	sink, err := t.openSink(ctx, id, namespace, want.Stdout)
	if err != nil {
		return nil, fmt.Errorf("terminal output: %w", err)
	}
	if want.Stdin != "" {
		if err := c.copyInput(t, want.Stdin); err != nil {
			sink.Close()
			return nil, err
		}
	}
	go func() {
		defer close(t.copied)
		_, _ = io.CopyBuffer(sink, ec, make([]byte, 4096))
		sink.Close()
	}()
	return t, nil
}

func (t *terminal) openSink(ctx context.Context, id, namespace, to string) (io.WriteCloser, error) {
	u, err := parseURI(to)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "binary":
		if t.logger, err = startLogger(ctx, u, id, namespace); err != nil {
			return nil, err
		}
		return t.logger.out, t.logger.CloseAfterStart()
	case "file":
		if err := createLog(u.Path); err != nil {
			return nil, err
		}
		return openSink(ctx, u.Path)
	}
	return openSink(ctx, to)
}

func (c *consoles) copyInput(t *terminal, path string) error {
	in, err := fifo.OpenFifo(context.Background(), path, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open stdin: %w", err)
	}
	holder, err := fifo.OpenFifo(context.Background(), path, syscall.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		in.Close()
		return fmt.Errorf("open stdin: %w", err)
	}
	t.stdin = holder
	go func() {
		_, _ = io.CopyBuffer(t.epoll, in, make([]byte, 4096))
		// The client is gone for good: hang up, as a terminal does.
		c.hangUp(t)
		_ = t.epoll.Close()
		in.Close()
	}()
	return nil
}

// shutdown lets the copying end with what the dead process has written.
func (c *consoles) shutdown(t *terminal) {
	if t != nil {
		c.hangUp(t)
	}
}

func (c *consoles) hangUp(t *terminal) {
	t.hungUp.Do(func() { _ = t.epoll.Shutdown(c.epoller.CloseConsole) })
}

// drain waits until all output is with the client.
func (t *terminal) drain(ctx context.Context) error {
	select {
	case <-t.copied:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *terminal) closeStdin() error {
	if t.stdin == nil {
		return nil
	}
	return t.stdin.Close()
}

// close frees the terminal; the process is dead.
func (t *terminal) close() {
	t.once.Do(func() {
		if t.stdin != nil {
			t.stdin.Close()
		}
		t.epoll.Close()
		if t.logger != nil {
			_ = t.logger.Close()
		}
	})
}

// Close closes the epoll descriptor, when the process is about to end.
func (c *consoles) Close() error { return c.epoller.Close() }
