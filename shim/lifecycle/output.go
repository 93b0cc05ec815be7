package lifecycle

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// drainLimit bounds the wait for the end of a dead container's pipe. The end
// comes at once unless the write side leaked out of the container.
const drainLimit = 5 * time.Second

// copyBufferSize is the unit of copying: what a pipe holds by default.
const copyBufferSize = 64 << 10

// output copies one output stream of a process to where the client wants it,
// across restores: pipes follow one another, the destination stays.
type output struct {
	dst   io.WriteCloser
	meter meter

	// mu guards the fields below.
	mu sync.Mutex
	// keep: the destination outlives the end of a pipe, as a restore may follow.
	keep bool
	src  *os.File
	// done is closed when the copying from src has ended.
	done   chan struct{}
	closed bool
}

// attach copies from src once everything from the pipe before is copied. What
// was written since from, if given, is dropped first.
func (o *output) attach(src *os.File, from *meterMark) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.done
	if o.src != nil {
		// The process that wrote to it is dead: what it wrote can be read
		// without waiting. A deadline that has passed does not cut this short,
		// see copy.
		_ = o.src.SetReadDeadline(time.Now().Add(drainLimit))
	}
	done := make(chan struct{})
	o.src, o.done = src, done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		if from != nil {
			o.meter.rewind(from)
		}
		o.copy(src)
		o.ended(src)
	}()
}

// copy moves data until the end of src, or an error of the destination. After
// the latter the process blocks when its pipe is full, as under runc's shim.
func (o *output) copy(src *os.File) {
	conn, err := src.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 4096)
	for {
		var out []byte
		var n int
		var rerr error
		read := func(fd uintptr) bool {
			o.meter.mu.Lock()
			defer o.meter.mu.Unlock()
			n, rerr = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), buf) })
			if n > 0 {
				out = o.meter.filterLocked(buf[:n])
			}
			return rerr != unix.EAGAIN
		}
		if err := conn.Read(read); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) || conn.Control(func(fd uintptr) { read(fd) }) != nil {
				return
			}
		}
		if n <= 0 || rerr != nil {
			return
		}
		if _, err := o.dst.Write(out); err != nil {
			log.L.WithError(err).Warn("copy output of container")
			return
		}
		if n == len(buf) && len(buf) < copyBufferSize {
			buf = make([]byte, copyBufferSize)
		}
	}
}

func ignoringEINTR(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// ended is called when src is done with.
func (o *output) ended(src *os.File) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = closeFile(src)
	if o.src == src {
		o.src = nil
		if !o.keep {
			o.closeLocked()
		}
	}
}

// mark remembers the current position, including what is still in the pipe.
func (o *output) mark() *meterMark {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.meter.mu.Lock()
	defer o.meter.mu.Unlock()
	var pending int
	if o.src != nil {
		if conn, err := o.src.SyscallConn(); err == nil {
			_ = conn.Control(func(fd uintptr) {
				// TIOCINQ is FIONREAD: the bytes in the pipe.
				pending, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
			})
		}
	}
	return o.meter.markLocked(int64(pending))
}

// release lets the destination be closed at the end of the current pipe.
func (o *output) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep = false
	if o.src == nil {
		o.closeLocked()
	}
}

// finished returns a channel that is closed when the current pipe is copied.
func (o *output) finished() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.done
}

// close ends the copying, whatever is left. It unblocks a write that nobody
// reads.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep = false
	if o.src != nil {
		_ = closeFile(o.src)
	}
	o.closeLocked()
}

func (o *output) closeLocked() {
	if !o.closed {
		o.closed = true
		_ = o.dst.Close()
	}
}
