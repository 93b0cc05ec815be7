package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"

	"github.com/containerd/containerd/v2/pkg/stdio"
	runc "github.com/containerd/go-runc"
)

var _ runc.IO = (*Stdio)(nil)
var _ runc.StartCloser = (*Stdio)(nil)

// Stdio are the container's ends of the standard streams of one run of init or
// of an exec, as runc and CRIU take them: pipes, or a terminal, which runc and
// CRIU make and hand over.
type Stdio struct {
	stdin, stdout, stderr *pipe
	null                  *os.File

	terminal bool
	stdinFor bool // somebody may type in the terminal
	// settle makes a new terminal like the one before it; nil: there is none.
	settle func(*tty)

	mu  sync.Mutex
	tty *tty // guarded by mu; nil until it is there
}

// newStdio makes a pipe for each stream that is wanted, owned by uid and gid, or
// waits for a terminal.
func newStdio(want stdio.Stdio, uid, gid int) (_ *Stdio, err error) {
	s := &Stdio{terminal: want.Terminal, stdinFor: want.Stdin != ""}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil || s.terminal {
		return s, err
	}
	if want.Stdin != "" {
		if s.stdin, err = newPipe(true, uid, gid); err != nil {
			return nil, fmt.Errorf("stdin pipe: %w", err)
		}
	}
	if want.Stdout != "" {
		if s.stdout, err = newPipe(false, uid, gid); err != nil {
			return nil, fmt.Errorf("stdout pipe: %w", err)
		}
	}
	if want.Stderr != "" {
		if s.stderr, err = newPipe(false, uid, gid); err != nil {
			return nil, fmt.Errorf("stderr pipe: %w", err)
		}
	}
	return s, nil
}

// Files returns the container's stdin, stdout and stderr. A stream that is not
// wanted is /dev/null, and so are those of a container with a terminal. The files
// belong to s: they are valid until the start has returned.
func (s *Stdio) Files() [3]*os.File {
	files := [3]*os.File{s.null, s.null, s.null}
	for i, p := range []*pipe{s.stdin, s.stdout, s.stderr} {
		if p != nil {
			files[i] = p.container
		}
	}
	return files
}

// SetConsole hands over the master of a terminal that was made for the
// container, and with it the file. The first terminal is init's: one that comes
// after it, of another process that is restored, is hung up.
func (s *Stdio) SetConsole(master *os.File) error {
	t, err := newTTY(master)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty != nil && s.tty.index < t.index {
		return t.close()
	}
	if s.tty != nil {
		err = s.tty.close()
	}
	s.tty = t
	return err
}

// Settle gives a new terminal the size of the one before it, and what was typed
// there and had not been read. It is to be called when the terminal is set up and
// no process uses it yet. pid is not used: Settle is a hook of CRIU's.
func (s *Stdio) Settle(int) error {
	if s.terminal && s.settle != nil {
		s.settle(s.term())
	}
	return nil
}

// term returns the terminal. Without one it is one that has been hung up.
func (s *Stdio) term() *tty {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty == nil {
		s.tty = hungUpTTY()
	}
	return s.tty
}

// Create is `runc create` with these streams, ready for the start of the user's
// program.
func (s *Stdio) Create(ctx context.Context, r *runc.Runc, id, bundle string, o runc.CreateOpts) error {
	if !s.terminal {
		o.IO = s
		return r.Create(ctx, id, bundle, &o)
	}
	socket, err := runc.NewTempConsoleSocket()
	if err != nil {
		return fmt.Errorf("console socket: %w", err)
	}
	defer socket.Close()
	o.ConsoleSocket = socket
	if err := r.Create(ctx, id, bundle, &o); err != nil {
		return err
	}
	if err := s.receive(socket); err != nil {
		return errors.Join(err, deleteRunc(context.WithoutCancel(ctx), r, id, true))
	}
	return s.Settle(0)
}

// receive takes the terminal that runc has made.
func (s *Stdio) receive(socket *runc.Socket) error {
	master, err := socket.ReceiveMaster()
	if err != nil {
		return fmt.Errorf("failed to retrieve console master: %w", err)
	}
	defer master.Close()
	f, err := duplicate(master.Fd())
	if err != nil {
		return err
	}
	return s.SetConsole(f)
}

// outputs returns where stdout and stderr come from, nil if they are not wanted.
func (s *Stdio) outputs() (out, err source) {
	if s.terminal {
		return s.term(), nil
	}
	if s.stdout != nil {
		out = s.stdout
	}
	if s.stderr != nil {
		err = s.stderr
	}
	return out, err
}

// input returns where stdin goes to, nil if it is not wanted.
func (s *Stdio) input() inlet {
	switch {
	case s.terminal && s.stdinFor:
		return s.term()
	case s.stdin != nil:
		return s.stdin
	}
	return nil
}

// Set gives the container's ends to cmd.
func (s *Stdio) Set(cmd *exec.Cmd) {
	f := s.Files()
	// os/exec would wrap a nil *os.File; an unset stream is /dev/null.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f[0], f[1], f[2]
}

// CloseAfterStart closes the container's ends of the output streams, so that
// their end is seen here. The reading end of stdin stays: what the container
// has not read can be handed to its successor.
func (s *Stdio) CloseAfterStart() error {
	err := closeFile(s.null)
	for _, p := range []*pipe{s.stdout, s.stderr} {
		if p != nil {
			err = errors.Join(err, closeFile(p.container))
		}
	}
	return err
}

// discard is Close for streams that may be nil.
func (s *Stdio) discard() error {
	if s == nil {
		return nil
	}
	return s.Close()
}

// Close closes both ends of all pipes, or the terminal.
func (s *Stdio) Close() error {
	var errs []error
	if s.null != nil {
		errs = append(errs, closeFile(s.null))
	}
	for _, p := range []*pipe{s.stdin, s.stdout, s.stderr} {
		if p != nil {
			errs = append(errs, p.close())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty != nil {
		errs = append(errs, s.tty.close())
	}
	return errors.Join(errs...)
}

// Stdin returns the shim's end, nil if there is none. It is there for
// runc.IO; the copying of streams owns the shim's ends.
func (s *Stdio) Stdin() io.WriteCloser {
	if s.stdin == nil {
		return nil
	}
	return s.stdin.shim
}

// Stdout returns the shim's end, nil if there is none (see Stdin).
func (s *Stdio) Stdout() io.ReadCloser {
	if s.stdout == nil {
		return nil
	}
	return s.stdout.shim
}

// Stderr returns the shim's end, nil if there is none (see Stdin).
func (s *Stdio) Stderr() io.ReadCloser {
	if s.stderr == nil {
		return nil
	}
	return s.stderr.shim
}
