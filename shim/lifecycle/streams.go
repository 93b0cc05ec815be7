package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/pkg/stdio"
	runc "github.com/containerd/go-runc"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// streams are the standard streams of one process: those of an init that may be
// restored, or of any process without a terminal.
type streams struct {
	want     stdio.Stdio
	uid, gid int
	// lasting: the process may be restored, so its streams go through the shim
	// and survive it.
	lasting bool

	logger *logger // nil without a binary:// URI
	sinks  [2]string

	in       *input
	out, err *output

	mu    sync.Mutex    // guards all below
	stdio *Stdio        // of the present run; nil: the process writes to the logger itself
	size  *unix.Winsize // that the client wants its terminal to have; nil: it has not said
}

// newStreams prepares what the process is given at its start; copying begins
// with open.
func newStreams(ctx context.Context, id, namespace string, want stdio.Stdio, uid, gid int, lasting bool) (*streams, error) {
	if want.Terminal {
		want.Stderr = "" // there is but one output
	}
	s := &streams{want: want, uid: uid, gid: gid, lasting: lasting, sinks: [2]string{want.Stdout, want.Stderr}}
	if want.IsNull() {
		return s, s.prepare()
	}
	u, err := parseURI(want.Stdout)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "file":
		if err := createLog(u.Path); err != nil {
			return nil, err
		}
		s.sinks = [2]string{u.Path, u.Path}
		s.oneSink()
	case "binary":
		return s, s.startLogger(ctx, u, id, namespace)
	}
	return s, s.prepare()
}

// oneSink: what takes stdout takes stderr too.
func (s *streams) oneSink() {
	if !s.want.Terminal {
		s.want.Stderr = s.want.Stdout
	}
}

func (s *streams) prepare() (err error) {
	s.stdio, err = newStdio(s.want, s.uid, s.gid)
	return err
}

func (s *streams) startLogger(ctx context.Context, u *url.URL, id, namespace string) (err error) {
	if s.logger, err = startLogger(ctx, u, id, namespace); err != nil {
		return err
	}
	if !s.lasting {
		return nil
	}
	s.oneSink()
	if err = s.prepare(); err != nil {
		return errors.Join(err, s.logger.Close())
	}
	return s.logger.CloseAfterStart()
}

// io is what runc gives to the process, nil with a terminal.
func (s *streams) io() runc.IO {
	switch {
	case s.stdio == nil:
		return s.logger
	case s.stdio.terminal:
		return nil
	}
	return s.stdio
}

// open opens the client's side and begins to copy.
func (s *streams) open(ctx context.Context) error {
	if s.stdio == nil {
		return nil
	}
	out, err := s.stdio.outputs()
	outDst, errDst, oerr := s.openSinks(ctx, out != nil, err != nil)
	if oerr != nil {
		return oerr
	}
	if out != nil {
		s.out = &output{dst: outDst, keep: s.lasting}
		s.out.attach(out, nil)
	}
	if err != nil {
		s.err = &output{dst: errDst, keep: s.lasting}
		s.err.attach(err, nil)
	}
	return s.openInput()
}

func (s *streams) openInput() (err error) {
	to := s.stdio.input()
	if to == nil {
		return nil
	}
	var typing func()
	if s.want.Terminal {
		typing = s.out.meter.giveUp
	}
	s.in, err = newInput(s.want.Stdin, to, s.lasting, typing)
	return err
}

func (s *streams) openSinks(ctx context.Context, wantOut, wantErr bool) (out, err io.WriteCloser, _ error) {
	if s.logger != nil {
		return s.logger.out, s.logger.err, nil
	}
	var oerr error
	if wantOut {
		if out, oerr = openSink(ctx, s.sinks[0]); oerr != nil {
			return nil, nil, fmt.Errorf("stdout: %w", oerr)
		}
	}
	if !wantErr {
		return out, nil, nil
	}
	if _, isFifo := out.(*fifoSink); out != nil && !isFifo && s.sinks[0] == s.sinks[1] {
		shared := &sharedSink{WriteCloser: out, users: 2}
		return shared, shared, nil
	}
	if err, oerr = openSink(ctx, s.sinks[1]); oerr != nil {
		if out != nil {
			out.Close()
		}
		return nil, nil, fmt.Errorf("stderr: %w", oerr)
	}
	return out, err, nil
}

// renew makes what a restored process is given. It takes effect with resume.
//
// Errors: ErrNotRecovering when the streams do not pass the shim.
func (s *streams) renew() (*Stdio, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdio == nil {
		return nil, fmt.Errorf("standard streams: %w", ErrNotRecovering)
	}
	next, err := newStdio(s.want, s.uid, s.gid)
	if err == nil {
		next.settle = s.settle
	}
	return next, err
}

// settle makes a new terminal like the one before it.
func (s *streams) settle(to *tty) {
	s.mu.Lock()
	size := s.size
	if size == nil {
		size = s.stdio.term().size()
	}
	s.mu.Unlock()
	err := to.resize(size)
	if s.in != nil {
		err = errors.Join(err, to.feed(s.in.retire()))
	}
	if err != nil {
		log.L.WithError(err).Warn("restored terminal")
	}
}

// resume copies from the new streams on, after the rest of the old ones, and
// drops what was written since mark.
func (s *streams) resume(p *Stdio, mark *StdioMark) error {
	s.mu.Lock()
	s.stdio = p
	size := s.size
	s.mu.Unlock()
	if s.in != nil {
		left := s.in.retire() // before the end of the old terminal
		if s.want.Terminal && len(left) > 0 {
			mark = nil // what comes is the answer to it
		}
	}
	out, err := p.outputs()
	if s.out != nil {
		s.out.attach(out, mark.of(0))
	}
	if s.err != nil {
		s.err.attach(err, mark.of(1))
	}
	var rerr error
	if size != nil {
		rerr = p.term().resize(size) // it may have come after settle
	}
	if s.in != nil {
		rerr = errors.Join(rerr, s.in.replace(p.input()))
	}
	return rerr
}

// resize sets the size of the terminal, and of those that will take its place.
func (s *streams) resize(size unix.Winsize) error {
	if !s.want.Terminal {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size = &size
	return s.stdio.term().resize(s.size)
}

// typed returns when somebody last typed in the terminal, zero if nobody has,
// and whether the client has hung up.
func (s *streams) typed() (last time.Time, hungUp bool) {
	if !s.want.Terminal || s.in == nil {
		return time.Time{}, false
	}
	return s.in.typed()
}

// mark remembers the positions of all streams.
func (s *streams) mark() *StdioMark {
	m := &StdioMark{in: s.in}
	if s.in != nil {
		m.inWritten = s.in.written()
	}
	if s.out != nil {
		m.outputs[0] = s.out.mark()
	}
	if s.err != nil {
		m.outputs[1] = s.err.mark()
	}
	return m
}

// release says that no restore will follow.
func (s *streams) release() {
	for _, o := range []*output{s.out, s.err} {
		if o != nil {
			o.release()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.want.Terminal {
		s.stdio.term().dead()
	}
}

// drain waits until all output is with the client.
//
// Errors: the context's.
func (s *streams) drain(ctx context.Context) error {
	for _, o := range []*output{s.out, s.err} {
		if o == nil {
			continue
		}
		select {
		case <-o.finished():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// closeStdin lets stdin end once the client has closed its side.
func (s *streams) closeStdin() error {
	if s.in == nil {
		return nil
	}
	return s.in.closeClient()
}

// close frees everything, whatever was not copied.
func (s *streams) close() {
	if s.in != nil {
		s.in.close()
	}
	for _, o := range []*output{s.out, s.err} {
		if o != nil {
			o.close()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdio != nil {
		_ = s.stdio.Close()
	}
	if s.logger != nil {
		_ = s.logger.Close()
	}
}
