package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxClients are answered at a time; more wait in the socket's backlog.
	maxClients = 8
	// maxRequest bounds the bytes of a request.
	maxRequest = 4 << 10
	// requestTime is what a client has to send its request, answerTime to take
	// the answer.
	requestTime = 5 * time.Second
	answerTime  = 5 * time.Second
)

// Server answers requests for one container.
type Server struct {
	handler  Handler
	listener *net.UnixListener
	dir      *os.File
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	slots    chan struct{}
}

// Serve listens in dir, a container's state directory, until Close. A socket
// that a dead shim left there is replaced.
func Serve(dir string, h Handler) (*Server, error) {
	d, err := openPrivate(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &Server{handler: h, dir: d, slots: make(chan struct{}, maxClients)}
	if err := s.listen(); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), d.Close())
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.run)
	return s, nil
}

// openPrivate opens a directory that must be ours alone.
func openPrivate(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	d := os.NewFile(uintptr(fd), dir)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0) {
		err = fmt.Errorf("%s has owner %d and mode %#o; it must be private", dir, st.Uid, st.Mode&0o7777)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// socketIn names the socket in an open directory, in few bytes.
func socketIn(dir *os.File) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), SocketName)}
}

func (s *Server) listen() error {
	if err := unix.Unlinkat(int(s.dir.Fd()), SocketName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return os.NewSyscallError("unlink", err)
	}
	l, err := net.ListenUnix("unix", socketIn(s.dir))
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false) // Close does it, by the directory's descriptor
	if err := unix.Fchmodat(int(s.dir.Fd()), SocketName, 0o600, 0); err != nil {
		return errors.Join(os.NewSyscallError("chmod", err), l.Close())
	}
	s.listener = l
	return nil
}

// Close removes the socket, gives up what is under way, and waits for its end.
// It may be called again, and on a nil Server.
func (s *Server) Close() error {
	if s == nil || s.dir == nil {
		return nil
	}
	s.cancel()
	err := s.listener.Close()
	s.wg.Wait()
	if uerr := unix.Unlinkat(int(s.dir.Fd()), SocketName, 0); uerr != nil && !errors.Is(uerr, unix.ENOENT) {
		err = errors.Join(err, os.NewSyscallError("unlink", uerr))
	}
	err = errors.Join(err, s.dir.Close())
	s.dir = nil
	return err
}

// run accepts clients until the listener is closed.
func (s *Server) run() {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			<-s.slots
			if s.ctx.Err() != nil {
				return
			}
			// Such as too many open files: it passes.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
				return
			}
			continue
		}
		s.wg.Go(func() {
			defer func() { <-s.slots }()
			defer conn.Close()
			s.serve(conn)
		})
	}
}

// serve answers one client.
func (s *Server) serve(conn *net.UnixConn) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, func() { _ = conn.SetReadDeadline(time.Now()) })()
	_ = conn.SetReadDeadline(time.Now().Add(requestTime))
	in := bufio.NewReader(io.LimitReader(conn, maxRequest))
	var req request
	line, err := in.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &req)
	}
	if s.ctx.Err() != nil {
		return
	}
	var out response
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrBadRequest, err)
	} else {
		_ = conn.SetReadDeadline(time.Time{})
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = in.ReadByte() // returns when the client, or the server, ends
			cancel()
		}()
		err = s.answer(ctx, &req, &out)
		_ = conn.SetReadDeadline(time.Now())
		<-gone
	}
	if err != nil {
		out = response{Error: err.Error()}
	}
	_ = conn.SetWriteDeadline(time.Now().Add(answerTime))
	_ = json.NewEncoder(conn).Encode(&out) // a client that has gone does not want it
}

func (s *Server) answer(ctx context.Context, req *request, out *response) (err error) {
	switch req.Op {
	case opStatus:
		out.Status, err = s.handler.Status(ctx)
	case opCheckpoint:
		out.Made, err = s.handler.Checkpoint(ctx, req.Image)
	case opImages:
		out.Images, err = s.handler.Images(ctx)
	case opPin:
		err = s.handler.Pin(ctx, req.Tag, req.Pinned)
	default:
		err = fmt.Errorf("%w: unknown operation %.40q", ErrBadRequest, req.Op)
	}
	return err
}
