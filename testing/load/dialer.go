package load

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"

	"github.com/vishvananda/netns"
)

// Dialer opens connections from inside a network namespace. A socket belongs
// for good to the namespace of the thread that makes it, so only the threads
// of the Dialer are ever inside; they end with their goroutines.
type Dialer struct {
	asks chan ask
	work sync.WaitGroup
}

type ask struct {
	ctx    context.Context
	target netip.AddrPort
	answer chan<- answer
}

type answer struct {
	conn net.Conn
	err  error
}

// NewDialer starts threads in the network namespace at path; empty: in ours.
func NewDialer(path string, threads int) (*Dialer, error) {
	d := &Dialer{asks: make(chan ask)}
	started := make(chan error, threads)
	for range threads {
		d.work.Go(func() {
			runtime.LockOSThread()
			if err := enter(path); err != nil {
				started <- err
				return
			}
			started <- nil
			for a := range d.asks {
				// An IP address is dialled on the calling goroutine; a name
				// or several addresses would not be.
				conn, err := (&net.Dialer{}).DialContext(a.ctx, "tcp", a.target.String())
				a.answer <- answer{conn, err}
			}
		})
	}
	var err error
	for range threads {
		if e := <-started; e != nil {
			err = e
		}
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func enter(path string) error {
	if path == "" {
		return nil
	}
	h, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("clients' namespace %s: %w", path, err)
	}
	defer h.Close()
	if err := netns.Set(h); err != nil {
		return fmt.Errorf("enter %s: %w", path, err)
	}
	return nil
}

// Dial may be called concurrently, and no longer after Close.
func (d *Dialer) Dial(ctx context.Context, target netip.AddrPort) (net.Conn, error) {
	c := make(chan answer, 1)
	d.asks <- ask{ctx, target, c}
	a := <-c
	return a.conn, a.err
}

// Close ends the threads. Connections stay open.
func (d *Dialer) Close() {
	close(d.asks)
	d.work.Wait()
}
