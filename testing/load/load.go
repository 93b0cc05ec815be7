package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Load is a running load. Its methods may be called concurrently.
type Load struct {
	o       Options
	dial    *Dialer
	clients []*client
	shared  *bitset
	windows *windows
	work    sync.WaitGroup

	stopping atomic.Bool
	released sync.Once
	requests atomic.Int64
	errors   atomic.Int64
}

// Start connects all clients, then lets them loose. It fails if one client
// cannot connect. Cancelling ctx later does not stop the load; Stop does.
func Start(ctx context.Context, o Options) (*Load, error) {
	o, err := o.defaultsAndValidate()
	if err != nil {
		return nil, err
	}
	d, err := NewDialer(o.Netns, min(o.Connections, 32))
	if err != nil {
		return nil, err
	}
	l := &Load{o: o, dial: d, shared: &bitset{}, windows: newWindows(time.Now())}
	for i := range o.Connections {
		c := newClient(l, i)
		l.clients = append(l.clients, c)
		if err := c.connect(ctx); err != nil {
			l.release()
			return nil, fmt.Errorf("client %d of %d: %w", i+1, o.Connections, err)
		}
	}
	for _, c := range l.clients {
		l.work.Go(c.run)
	}
	return l, nil
}

// Progress returns the replies that were received and checked, and the errors
// that clients saw, so far.
func (l *Load) Progress() (requests, errors int64) {
	return l.requests.Load(), l.errors.Load()
}

// LongestBetween returns the longest wait for a reply or a connection among
// those that ended between two times, with a resolution of 10 ms.
func (l *Load) LongestBetween(from, to time.Time) time.Duration {
	return l.windows.longest(from, to)
}

// Stop lets every client receive the replies that it waits for, then reads the
// keys back. It takes up to the options' timeout when the server hangs. The
// error says that the keys could not be read; the result is valid without
// them.
func (l *Load) Stop(ctx context.Context) (Result, error) {
	l.stopping.Store(true)
	l.work.Wait()
	defer l.release()
	return l.result(ctx)
}

// Abandon ends the load of which nobody wants to know any more, as Stop does. After
// Stop it does nothing.
func (l *Load) Abandon() {
	l.stopping.Store(true)
	l.work.Wait()
	l.release()
}

// release closes what is still open.
func (l *Load) release() {
	l.released.Do(func() {
		for _, c := range l.clients {
			if c.conn != nil {
				c.conn.Close()
			}
		}
		l.dial.Close()
	})
}
