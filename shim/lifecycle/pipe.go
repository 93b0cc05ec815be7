package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// pipe has a container side and a shim side.
type pipe struct {
	container, shim *os.File
	// Of a pipe that the shim reads from, for next.
	conn syscall.RawConn
	buf  []byte
}

var (
	_ source = (*pipe)(nil)
	_ inlet  = (*pipe)(nil)
)

func newPipe(containerReads bool, uid, gid int) (*pipe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p := &pipe{container: w, shim: r}
	if containerReads {
		p = &pipe{container: r, shim: w}
	}
	if err := p.container.Chown(uid, gid); err != nil {
		return nil, errors.Join(err, p.close())
	}
	if p.conn, err = p.shim.SyscallConn(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// next implements source.
func (p *pipe) next(m *meter) (out []byte, more bool) {
	if p.buf == nil {
		p.buf = make([]byte, firstBufferSize)
	}
	var n int
	var rerr error
	read := func(fd uintptr) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		n, rerr = ignoringEINTR(func() (int, error) { return unix.Read(int(fd), p.buf) })
		if n > 0 {
			out = m.filterLocked(p.buf[:n])
		}
		return rerr != unix.EAGAIN
	}
	if err := p.conn.Read(read); err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) || p.conn.Control(func(fd uintptr) { read(fd) }) != nil {
			return nil, false
		}
	}
	if n <= 0 || rerr != nil {
		return nil, false
	}
	if n == len(p.buf) && len(p.buf) < copyBufferSize {
		p.buf = make([]byte, copyBufferSize)
	}
	return out, true
}

func ignoringEINTR(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// pendingLocked implements source.
func (p *pipe) pendingLocked() int64 {
	var pending int
	_ = p.conn.Control(func(fd uintptr) {
		// TIOCINQ is FIONREAD: the bytes in the pipe.
		pending, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	})
	return int64(pending)
}

// dead implements source: a deadline that has passed does not cut short what
// can be read without waiting, see next.
func (p *pipe) dead() { _ = p.shim.SetReadDeadline(time.Now().Add(drainLimit)) }

// done implements source.
func (p *pipe) done() bool {
	_ = closeFile(p.shim)
	return true
}

// write implements inlet.
func (p *pipe) write(b []byte) (int, error) { return p.shim.Write(b) }

// retire implements inlet.
func (p *pipe) retire() []byte {
	_ = closeFile(p.shim)
	left, err := unread(p.container)
	if err != nil {
		log.L.WithError(err).Error("standard input that was not read is lost")
	}
	_ = closeFile(p.container)
	return left
}

// unread returns what is in the pipe.
func unread(r *os.File) ([]byte, error) {
	fd := int(r.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil || n == 0 {
		return nil, err
	}
	// The dead may have given the pipe to somebody who reads it, too.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	for at := 0; at < n; {
		got, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, b[at:]) })
		if at += max(got, 0); got <= 0 {
			return b[:at], err
		}
	}
	return b, nil
}

// feed implements inlet.
func (p *pipe) feed(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	// The process may have made the pipe before larger than they are by default; this
	// one may be of somebody who does not read.
	_ = p.conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, len(b)) })
	_ = p.shim.SetWriteDeadline(time.Now().Add(feedLimit))
	_, err := p.shim.Write(b)
	_ = p.shim.SetWriteDeadline(time.Time{})
	if err != nil {
		return fmt.Errorf("move unread stdin: %w", err)
	}
	return nil
}

// end implements inlet.
func (p *pipe) end() { _ = closeFile(p.shim) }

// close implements source and inlet.
func (p *pipe) close() error {
	return errors.Join(closeFile(p.container), closeFile(p.shim))
}

// closeFile closes f, which may have been closed before.
func closeFile(f *os.File) error {
	if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
