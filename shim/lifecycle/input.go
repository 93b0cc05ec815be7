package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

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
	current inlet
	// keep: a failing inlet is waited for to be replaced, as a restore may follow.
	keep    bool
	ended   bool // the client has closed its side
	closed  bool
	retired bool // current takes no more
	// left is what the dead have not read, until somebody is given it.
	left   []byte
	total  int64     // bytes written to inlets
	last   time.Time // when the last of them was
	typing func()
}

// feedLimit bounds the handing over of what the dead have not read.
const feedLimit = time.Second

// inlet is where stdin goes to in one run of the process.
type inlet interface {
	write(b []byte) (int, error)
	// retire ends a write that is under way and returns what the process, which
	// is dead, has not read. It is called once.
	retire() []byte
	// feed gives the process what the one before it has not read; the first call
	// counts.
	feed(b []byte) error
	// end says that there is no more.
	end()
	close() error
}

// newInput opens the fifo at path and copies from it to the process. typing, if
// set, is told of all input before the process is given it.
func newInput(path string, to inlet, keep bool, typing func()) (*input, error) {
	src, err := fifo.OpenFifo(context.Background(), path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open stdin: %w", err)
	}
	holder, err := fifo.OpenFifo(context.Background(), path, unix.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		src.Close()
		return nil, fmt.Errorf("open stdin: %w", err)
	}
	in := &input{src: src, holder: holder, current: to, keep: keep, typing: typing}
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
	in.current.end()
}

// write returns false when nobody will take b any more.
func (in *input) write(b []byte) bool {
	for len(b) > 0 {
		in.mu.Lock()
		to := in.current
		in.mu.Unlock()
		if in.typing != nil {
			in.typing()
		}
		n, err := to.write(b)
		b = b[n:]
		in.mu.Lock()
		if n > 0 {
			in.total, in.last = in.total+int64(n), time.Now()
		}
		if err != nil {
			for in.current == to && in.keep && !in.closed {
				in.changed.Wait()
			}
			if in.current == to || in.closed {
				in.mu.Unlock()
				return false
			}
		}
		in.mu.Unlock()
	}
	return true
}

// retire returns what the process, which is dead, has not read. What comes from
// now on waits for replace.
func (in *input) retire() []byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.retireLocked()
}

func (in *input) retireLocked() []byte {
	if !in.retired {
		in.retired = true
		// Ends a write that is under way, so that the order is kept.
		in.left = append(in.left, in.current.retire()...)
	}
	return in.left
}

// replace gives the stream to a new process, and to it what the dead one had not
// read.
func (in *input) replace(to inlet) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	err := to.feed(in.retireLocked())
	in.current, in.retired, in.left = to, false, nil
	if in.ended || in.closed {
		to.end()
	}
	in.changed.Broadcast()
	return err
}

// typed returns when the process was last given something, zero if never, and
// whether the client has closed its side.
func (in *input) typed() (last time.Time, ended bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.last, in.ended
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
