package lifecycle

import (
	"io"
	"sync"
	"time"

	"github.com/containerd/log"
)

// drainLimit bounds the wait for the end of a dead container's pipe. The end
// comes at once unless the write side leaked out of the container.
const drainLimit = 5 * time.Second

// copyBufferSize is the unit of copying: what a pipe holds by default.
const copyBufferSize = 64 << 10

// firstBufferSize is the unit of copying until somebody fills it.
const firstBufferSize = 4096

// source is where an output stream comes from in one run of the process.
type source interface {
	// next waits for output and returns what m leaves of it, valid until the next
	// call. Without more the stream has ended. One goroutine calls it.
	next(m *meter) (out []byte, more bool)
	// pendingLocked returns how much has been written that next has not
	// accounted for, exactly if nobody writes. The caller holds the meter's mutex.
	pendingLocked() int64
	// dead says that the process is: what it has written can be read without
	// waiting, and then the stream ends.
	dead()
	// done says that next will not be called any more. It closes the stream and
	// returns true, unless the process still needs it.
	done() bool
	close() error
}

// output copies one output stream of a process to where the client wants it,
// across restores: pipes follow one another, the destination stays.
type output struct {
	dst   io.WriteCloser
	meter meter

	// mu guards the fields below.
	mu sync.Mutex
	// keep: the destination outlives the end of a pipe, as a restore may follow.
	keep bool
	src  source
	// done is closed when the copying from src has ended.
	done   chan struct{}
	closed bool
}

// attach copies from src once everything from the pipe before is copied. What
// was written since from, if given, is dropped first.
func (o *output) attach(src source, from *meterMark) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before, old := o.done, o.src
	if old != nil {
		old.dead()
	}
	done := make(chan struct{})
	o.src, o.done = src, done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		if old != nil {
			_ = old.close()
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
func (o *output) copy(src source) {
	for {
		out, more := src.next(&o.meter)
		if _, err := o.dst.Write(out); err != nil {
			log.L.WithError(err).Warn("copy output of container")
			return
		}
		if !more {
			return
		}
	}
}

// ended is called when src is done with.
func (o *output) ended(src source) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if src.done() && o.src == src {
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
	var pending int64
	if o.src != nil {
		pending = o.src.pendingLocked()
	}
	return o.meter.markLocked(pending)
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
		_ = o.src.close()
	}
	o.closeLocked()
}

func (o *output) closeLocked() {
	if !o.closed {
		o.closed = true
		_ = o.dst.Close()
	}
}
