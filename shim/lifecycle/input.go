package lifecycle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"context"

	"github.com/containerd/fifo"
	"golang.org/x/sys/unix"
)

// input copies a process's stdin from the client's fifo, across restores.
type input struct {
	src io.ReadCloser
	// holder keeps the fifo from ending until the client asks for it (CloseIO).
	holder io.WriteCloser

	// mu guards the fields below; changed is signalled when dst is replaced or
	// the stream is closed.
	mu      sync.Mutex
	changed *sync.Cond
	current *pipe
	// keep: a failing pipe is waited for to be replaced, as a restore may follow.
	keep   bool
	ended  bool // the client has closed its side
	closed bool
	total  int64 // bytes written to pipes
}

// newInput opens the fifo at path and copies from it to p.
func newInput(path string, p *pipe, keep bool) (*input, error) {
	src, err := fifo.OpenFifo(context.Background(), path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open stdin: %w", err)
	}
	holder, err := fifo.OpenFifo(context.Background(), path, unix.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		src.Close()
		return nil, fmt.Errorf("open stdin: %w", err)
	}
	in := &input{src: src, holder: holder, current: p, keep: keep}
	in.changed = sync.NewCond(&in.mu)
	go in.copy()
	return in, nil
}

func (in *input) copy() {
	defer in.src.Close()
	buf := make([]byte, 4096)
	for {
		n, err := in.src.Read(buf)
		if !in.write(buf[:n]) {
			return
		}
		if err != nil {
			break
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
	_ = closeFile(in.current.shim)
}

// write returns false when no pipe will take b any more.
func (in *input) write(b []byte) bool {
	for len(b) > 0 {
		in.mu.Lock()
		p := in.current
		in.mu.Unlock()
		n, err := p.shim.Write(b)
		b = b[n:]
		in.mu.Lock()
		in.total += int64(n)
		if err != nil {
			for in.current == p && in.keep && !in.closed {
				in.changed.Wait()
			}
			if in.current == p || in.closed {
				in.mu.Unlock()
				return false
			}
		}
		in.mu.Unlock()
	}
	return true
}

// replace gives the stream a new pipe. What the dead process had not read of
// the old one is moved to the new one.
func (in *input) replace(p *pipe) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	old := in.current
	// Ends a write that is under way, so that the order is kept.
	_ = closeFile(old.shim)
	left, err := unread(old.container)
	if err == nil && len(left) > 0 {
		_, err = p.shim.Write(left)
	}
	_ = closeFile(old.container)
	in.current = p
	if in.ended || in.closed {
		_ = closeFile(p.shim)
	}
	in.changed.Broadcast()
	if err != nil {
		return fmt.Errorf("move unread stdin: %w", err)
	}
	return nil
}

// unread returns what is in the pipe.
func unread(r *os.File) ([]byte, error) {
	n, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
	if err != nil || n == 0 {
		return nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}

// written returns how many bytes the process has been given so far.
func (in *input) written() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.total
}

// closeClient lets the stream end once the client has closed its side.
func (in *input) closeClient() error {
	if err := in.holder.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close stdin: %w", err)
	}
	return nil
}

func (in *input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return
	}
	in.closed = true
	in.changed.Broadcast()
	_ = in.current.close()
	_ = in.holder.Close()
	_ = in.src.Close()
}
