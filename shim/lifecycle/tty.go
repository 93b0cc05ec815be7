package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// pendingLimit is more than the kernel keeps of a terminal's output, in bytes.
// Somebody who is not frozen with the container may have the terminal as well.
const pendingLimit = 1 << 20

// tty is the terminal of one run of an init that may be restored. The shim
// holds a slave of its own, so that input which the dead have not read can be had
// back: a terminal whose last slave is closed forgets it.
//
// Output is taken from the kernel as it comes, up to copyBufferSize. The kernel
// keeps a terminal's output in two places, and counts what is in one of them;
// what nobody has taken at a checkpoint could not be known otherwise.
type tty struct {
	master *os.File // nil: hung up from the beginning
	slave  *os.File
	index  int // of the terminal, in the container
	conn   syscall.RawConn

	fed bool // feed was called

	mu      sync.Mutex // guards all below
	changed *sync.Cond
	buf     []byte // output that nobody has taken
	ended   bool   // there will be no more of it
}

var (
	_ source = (*tty)(nil)
	_ inlet  = (*tty)(nil)
)

// newTTY takes over the master of an unlocked terminal.
func newTTY(master *os.File) (_ *tty, err error) {
	t := &tty{}
	t.changed = sync.NewCond(&t.mu)
	defer func() {
		err = errors.Join(err, closeFile(master))
		if err != nil {
			_ = t.close()
		}
	}()
	fd := master.Fd()
	if t.index, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err != nil {
		return nil, os.NewSyscallError("TIOCGPTN", err)
	}
	// Not by its path: that is the container's.
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if errno != 0 {
		return nil, os.NewSyscallError("TIOCGPTPEER", errno)
	}
	t.slave = os.NewFile(peer, "slave")
	if t.master, err = duplicate(fd); err != nil {
		return nil, err
	}
	if t.conn, err = t.master.SyscallConn(); err != nil {
		return nil, err
	}
	go t.take()
	return t, nil
}

// duplicate returns a file of its own for fd, which does not block.
func duplicate(fd uintptr) (*os.File, error) {
	n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	if err := unix.SetNonblock(n, true); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(n))
	}
	return os.NewFile(uintptr(n), "master"), nil
}

// hungUpTTY is the terminal of processes that have lost it.
func hungUpTTY() *tty {
	t := &tty{ended: true}
	t.changed = sync.NewCond(&t.mu)
	return t
}

// take reads until the terminal has ended.
func (t *tty) take() {
	for t.awaitRoom() {
		more := false
		read := func(fd uintptr) bool {
			t.mu.Lock()
			defer t.mu.Unlock()
			n, err := t.readLocked(fd)
			more = n > 0
			return err != unix.EAGAIN
		}
		err := t.conn.Read(read)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// The dead have written all that they will.
			_ = t.conn.Control(func(fd uintptr) { read(fd) })
		}
		if !more {
			break // EIO: the last slave has been closed
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.changed.Broadcast()
}

// awaitRoom reports false when the terminal has ended.
func (t *tty) awaitRoom() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.buf) >= copyBufferSize && !t.ended {
		t.changed.Wait()
	}
	return !t.ended
}

// readLocked takes what is there, a page of it.
func (t *tty) readLocked(fd uintptr) (int, error) {
	var page [firstBufferSize]byte
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(int(fd), page[:]) })
	if n > 0 {
		t.buf = append(t.buf, page[:n]...)
		t.changed.Broadcast()
	}
	return n, err
}

// next implements source.
func (t *tty) next(m *meter) (out []byte, more bool) {
	t.mu.Lock()
	for len(t.buf) == 0 && !t.ended {
		t.changed.Wait()
	}
	t.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.buf
	t.buf = nil
	t.changed.Broadcast()
	return m.filterLocked(b), len(b) > 0
}

// pendingLocked implements source: it takes all there is.
func (t *tty) pendingLocked() int64 {
	t.flush()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.master != nil {
		_ = t.conn.Control(func(fd uintptr) {
			for len(t.buf) < pendingLimit {
				if n, err := t.readLocked(fd); n <= 0 || err != nil {
					return
				}
			}
		})
	}
	return int64(len(t.buf))
}

// flush waits until the kernel has handled what was typed: what it echoes is
// output.
func (t *tty) flush() {
	if t.slave == nil {
		return
	}
	if conn, err := t.slave.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) {
			// n_tty_poll of the kernel waits for the work of the line discipline.
			_, _ = ignoringEINTR(func() (int, error) {
				return unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			})
		})
	}
}

// dead implements source: without a slave the master ends behind the last byte.
func (t *tty) dead() {
	if t.master == nil {
		return
	}
	_ = closeFile(t.slave)
	_ = t.master.SetReadDeadline(time.Now().Add(drainLimit))
}

// done implements source: a terminal is closed when its processes are gone.
func (t *tty) done() bool {
	t.mu.Lock()
	ended := t.ended
	t.mu.Unlock()
	if ended {
		_ = t.close()
	}
	return ended
}

// write implements inlet.
func (t *tty) write(b []byte) (int, error) {
	if t.master == nil {
		return 0, os.ErrClosed
	}
	return t.master.Write(b)
}

// retire implements inlet.
func (t *tty) retire() []byte {
	if t.master == nil {
		return nil
	}
	_ = t.master.SetWriteDeadline(time.Now())
	t.flush()
	left, err := t.unread()
	if err != nil {
		log.L.WithError(err).Warn("what was typed and not read is lost")
	}
	return left
}

// unread takes what was typed from a terminal that nobody uses any more.
func (t *tty) unread() (left []byte, err error) {
	conn, err := t.slave.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := conn.Control(func(fd uintptr) {
		var settings *unix.Termios
		if settings, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err != nil {
			return
		}
		settings.Lflag &^= unix.ICANON // also an unfinished line
		settings.Cc[unix.VMIN], settings.Cc[unix.VTIME] = 0, 0
		if err = unix.IoctlSetTermios(int(fd), unix.TCSETS, settings); err != nil {
			return
		}
		var page [firstBufferSize]byte
		for {
			n, rerr := ignoringEINTR(func() (int, error) { return unix.Read(int(fd), page[:]) })
			if n <= 0 || rerr != nil {
				return
			}
			left = append(left, page[:n]...)
		}
	})
	return left, errors.Join(err, cerr)
}

// feed implements inlet. What was typed has been echoed once. It must not run
// beside processes that change the terminal's settings, or those may be lost.
func (t *tty) feed(b []byte) error {
	if t.fed || t.master == nil || len(b) == 0 {
		return nil
	}
	t.fed = true
	conn, err := t.slave.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		var was *unix.Termios
		if was, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err != nil {
			return
		}
		silent := *was
		silent.Lflag &^= unix.ECHO | unix.ECHONL
		if err = unix.IoctlSetTermios(int(fd), unix.TCSETS, &silent); err != nil {
			return
		}
		_ = t.master.SetWriteDeadline(time.Now().Add(feedLimit))
		_, err = t.master.Write(b)
		_ = t.master.SetWriteDeadline(time.Time{})
		t.flush()
		err = errors.Join(err, unix.IoctlSetTermios(int(fd), unix.TCSETS, was))
	})
	if err = errors.Join(err, cerr); err != nil {
		return fmt.Errorf("type again what was not read: %w", err)
	}
	return nil
}

// end implements inlet: the client is gone for good, and the terminal hangs up.
func (t *tty) end() { _ = t.close() }

// size returns the size in characters, nil if it is not known.
func (t *tty) size() *unix.Winsize {
	var size *unix.Winsize
	if t.master != nil {
		_ = t.conn.Control(func(fd uintptr) { size, _ = unix.IoctlGetWinsize(int(fd), unix.TIOCGWINSZ) })
	}
	return size
}

// resize tells the foreground processes if the size is another one.
func (t *tty) resize(size *unix.Winsize) error {
	if t.master == nil || size == nil {
		return nil
	}
	var err error
	if cerr := t.conn.Control(func(fd uintptr) { err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) }); cerr != nil {
		return cerr
	}
	return os.NewSyscallError("TIOCSWINSZ", err)
}

// close implements source and inlet. Processes that have the terminal are hung
// up.
func (t *tty) close() error {
	var errs []error
	for _, f := range []*os.File{t.slave, t.master} {
		if f != nil {
			errs = append(errs, closeFile(f))
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.changed.Broadcast()
	return errors.Join(errs...)
}
