package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	runc "github.com/containerd/go-runc"

	"io"

	"github.com/containerd/containerd/v2/pkg/stdio"
)

var _ runc.IO = (*Pipes)(nil)
var _ runc.StartCloser = (*Pipes)(nil)

// Pipes are the container's ends of the standard streams of one run of init or
// of an exec, as runc and CRIU take them.
type Pipes struct {
	stdin, stdout, stderr *pipe
	null                  *os.File
}

// pipe has a container side and a shim side.
type pipe struct {
	container, shim *os.File
}

// newPipes makes a pipe for each stream that is wanted, owned by uid and gid.
func newPipes(want stdio.Stdio, uid, gid int) (_ *Pipes, err error) {
	p := &Pipes{}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if p.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if want.Stdin != "" {
		if p.stdin, err = newPipe(true, uid, gid); err != nil {
			return nil, fmt.Errorf("stdin pipe: %w", err)
		}
	}
	if want.Stdout != "" {
		if p.stdout, err = newPipe(false, uid, gid); err != nil {
			return nil, fmt.Errorf("stdout pipe: %w", err)
		}
	}
	if want.Stderr != "" {
		if p.stderr, err = newPipe(false, uid, gid); err != nil {
			return nil, fmt.Errorf("stderr pipe: %w", err)
		}
	}
	return p, nil
}

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
		p.close()
		return nil, err
	}
	return p, nil
}

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

// Files returns the container's stdin, stdout and stderr. A stream that is not
// wanted is /dev/null. The files belong to p: they are valid until the start
// has returned.
func (p *Pipes) Files() [3]*os.File {
	files := [3]*os.File{p.null, p.null, p.null}
	for i, s := range []*pipe{p.stdin, p.stdout, p.stderr} {
		if s != nil {
			files[i] = s.container
		}
	}
	return files
}

// Piped tells which of stdin, stdout and stderr are pipes.
func (p *Pipes) Piped() [3]bool {
	return [3]bool{p.stdin != nil, p.stdout != nil, p.stderr != nil}
}

// Set gives the container's ends to cmd.
func (p *Pipes) Set(cmd *exec.Cmd) {
	f := p.Files()
	// os/exec would wrap a nil *os.File; an unset stream is /dev/null.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f[0], f[1], f[2]
}

// CloseAfterStart closes the container's ends of the output streams, so that
// their end is seen here. The reading end of stdin stays: what the container
// has not read can be handed to its successor.
func (p *Pipes) CloseAfterStart() error {
	err := closeFile(p.null)
	for _, s := range []*pipe{p.stdout, p.stderr} {
		if s != nil {
			err = errors.Join(err, closeFile(s.container))
		}
	}
	return err
}

// discard is Close for pipes that may be nil.
func (p *Pipes) discard() error {
	if p == nil {
		return nil
	}
	return p.Close()
}

// Close closes both ends of all pipes.
func (p *Pipes) Close() error {
	var errs []error
	if p.null != nil {
		errs = append(errs, closeFile(p.null))
	}
	for _, s := range []*pipe{p.stdin, p.stdout, p.stderr} {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}

// Stdin returns the shim's end, nil if there is none. It is there for
// runc.IO; the copying of streams owns the shim's ends.
func (p *Pipes) Stdin() io.WriteCloser {
	if p.stdin == nil {
		return nil
	}
	return p.stdin.shim
}

// Stdout returns the shim's end, nil if there is none (see Stdin).
func (p *Pipes) Stdout() io.ReadCloser {
	if p.stdout == nil {
		return nil
	}
	return p.stdout.shim
}

// Stderr returns the shim's end, nil if there is none (see Stdin).
func (p *Pipes) Stderr() io.ReadCloser {
	if p.stderr == nil {
		return nil
	}
	return p.stderr.shim
}
