package lifecycle

import (
	"context"
	"fmt"

	runc "github.com/containerd/go-runc"
)

// wiring connects the standard streams of a process that is being started: it
// holds what is needed between the preparation, runc's run and the connection.
type wiring struct {
	c       *Container
	p       *process
	socket  *runc.Socket // with a terminal
	streams *streams     // nil with the terminal of a process that is not restored
}

// prepareStdio makes the console socket or the pipes of p. lasting is for a
// process that may be restored.
func (c *Container) prepareStdio(ctx context.Context, p *process, lasting bool) (*wiring, error) {
	w := &wiring{c: c, p: p}
	if p.stdio.Terminal {
		socket, err := runc.NewTempConsoleSocket()
		if err != nil {
			return nil, fmt.Errorf("failed to create OCI runtime console socket: %w", err)
		}
		w.socket = socket
		if !lasting {
			return w, nil
		}
	}
	id := p.id
	if id == "" {
		id = c.id
	}
	s, err := newStreams(ctx, id, c.s.namespace, p.stdio, int(c.options.IoUid), int(c.options.IoGid), lasting)
	if err != nil {
		w.close()
		return nil, fmt.Errorf("failed to create process I/O: %w", err)
	}
	w.streams = s
	return w, nil
}

// runcIO is what runc gives to the process, nil with a terminal.
func (w *wiring) runcIO() runc.IO {
	if w.streams == nil {
		return nil
	}
	return w.streams.io()
}

// connect opens the client's side and begins to copy, once runc has started
// the process.
//
// Errors: the context's, also after openLimit.
func (w *wiring) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	if w.streams != nil {
		return w.connectStreams(ctx)
	}
	master, err := w.socket.ReceiveMaster()
	if err != nil {
		return fmt.Errorf("failed to retrieve console master: %w", err)
	}
	id := w.p.id
	if id == "" {
		id = w.c.id
	}
	t, err := w.c.s.consoles.open(ctx, master, id, w.c.s.namespace, w.p.stdio)
	if err != nil {
		return fmt.Errorf("failed to start console copy: %w", err)
	}
	return w.connected(nil, t)
}

func (w *wiring) connectStreams(ctx context.Context) error {
	if w.socket != nil {
		if err := w.streams.stdio.receive(w.socket); err != nil {
			return err
		}
	}
	if err := w.streams.open(ctx); err != nil {
		return fmt.Errorf("failed to start io pipe copy: %w", err)
	}
	return w.connected(w.streams, nil)
}

// connected gives the process its streams, with what was asked of them before.
func (w *wiring) connected(s *streams, t *terminal) error {
	w.c.mu.Lock()
	w.p.streams, w.p.terminal = s, t
	closed := w.p.stdinClosed
	w.c.mu.Unlock()
	if closed {
		return closeStdin(s, t)
	}
	return nil
}

// abandon frees what connect would have used, or used in vain.
func (w *wiring) abandon() {
	if w.streams != nil {
		w.streams.close()
	}
	w.c.mu.Lock()
	t := w.p.terminal
	w.c.mu.Unlock()
	if t != nil {
		w.c.s.consoles.shutdown(t)
		t.close()
	}
}

// close frees what is needed during the start only.
func (w *wiring) close() {
	if w.socket != nil {
		_ = w.socket.Close()
	}
}
