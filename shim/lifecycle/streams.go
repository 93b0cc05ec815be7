package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/containerd/containerd/v2/pkg/stdio"
	runc "github.com/containerd/go-runc"
)

// streams are the standard streams of one process without a terminal.
type streams struct {
	want     stdio.Stdio
	uid, gid int
	// lasting: the process may be restored, so its streams go through the shim
	// and survive it.
	lasting bool

	pipes  *Pipes  // nil: the process writes to the logger itself
	logger *logger // nil without a binary:// URI
	sinks  [2]string

	in       *input
	out, err *output
}

// newStreams prepares what the process is given at its start; copying begins
// with open.
func newStreams(ctx context.Context, id, namespace string, want stdio.Stdio, uid, gid int, lasting bool) (*streams, error) {
	s := &streams{want: want, uid: uid, gid: gid, lasting: lasting, sinks: [2]string{want.Stdout, want.Stderr}}
	if want.IsNull() {
		return s, s.makePipes()
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
		s.want.Stderr = want.Stdout
	case "binary":
		return s, s.startLogger(ctx, u, id, namespace)
	}
	return s, s.makePipes()
}

func (s *streams) makePipes() (err error) {
	s.pipes, err = newPipes(s.want, s.uid, s.gid)
	return err
}

func (s *streams) startLogger(ctx context.Context, u *url.URL, id, namespace string) (err error) {
	if s.logger, err = startLogger(ctx, u, id, namespace); err != nil {
		return err
	}
	if !s.lasting {
		return nil
	}
	s.want.Stderr = s.want.Stdout
	if err = s.makePipes(); err != nil {
		return errors.Join(err, s.logger.Close())
	}
	return s.logger.CloseAfterStart()
}

// io is what runc gives to the process.
func (s *streams) io() runc.IO {
	if s.pipes == nil {
		return s.logger
	}
	return s.pipes
}

// open opens the client's side and begins to copy.
func (s *streams) open(ctx context.Context) error {
	if s.pipes == nil {
		return nil
	}
	outDst, errDst, err := s.openSinks(ctx)
	if err != nil {
		return err
	}
	if p := s.pipes.stdout; p != nil {
		s.out = &output{dst: outDst, keep: s.lasting}
		s.out.attach(p.shim, nil)
	}
	if p := s.pipes.stderr; p != nil {
		s.err = &output{dst: errDst, keep: s.lasting}
		s.err.attach(p.shim, nil)
	}
	if p := s.pipes.stdin; p != nil {
		if s.in, err = newInput(s.want.Stdin, p, s.lasting); err != nil {
			return err
		}
	}
	return nil
}

func (s *streams) openSinks(ctx context.Context) (out, err io.WriteCloser, _ error) {
	if s.logger != nil {
		return s.logger.out, s.logger.err, nil
	}
	var oerr error
	if s.pipes.stdout != nil {
		if out, oerr = openSink(ctx, s.sinks[0]); oerr != nil {
			return nil, nil, fmt.Errorf("stdout: %w", oerr)
		}
	}
	if s.pipes.stderr == nil {
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

// renew makes new pipes for a restore. They take effect with resume.
func (s *streams) renew() (*Pipes, error) { return newPipes(s.want, s.uid, s.gid) }

// resume copies from the new pipes on, after the rest of the old ones, and
// drops what was written since mark.
func (s *streams) resume(p *Pipes, mark *StdioMark) error {
	s.pipes = p
	if s.out != nil {
		s.out.attach(p.stdout.shim, mark.of(0))
	}
	if s.err != nil {
		s.err.attach(p.stderr.shim, mark.of(1))
	}
	if s.in != nil {
		return s.in.replace(p.stdin)
	}
	return nil
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
	if s.pipes != nil {
		_ = s.pipes.Close()
	}
	if s.logger != nil {
		_ = s.logger.Close()
	}
}
