package netproxy

import (
	"sync"
	"sync/atomic"

	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

// askers find out whether a SYN in the queue is the application's, or that of
// another container in the namespace: to look through open descriptors takes
// too long for the loop.
type askers struct {
	owns func([]uint32) redirect.Ownership // nil: nothing is asked
	diag *sockdiag.Conn
	wake func()
	wg   sync.WaitGroup
	// ready: there are answers.
	ready atomic.Bool

	mu    sync.Mutex // guards all below
	more  *sync.Cond
	queue []*syn // to be asked about, and the one in work
	done  []*syn
	ended bool
}

func newAskers(ns int, owns func([]uint32) redirect.Ownership, wake func()) (*askers, error) {
	a := &askers{owns: owns, wake: wake}
	a.more = sync.NewCond(&a.mu)
	if owns == nil {
		return a, nil
	}
	var err error
	if a.diag, err = sockdiag.Open(ns); err != nil {
		return nil, err
	}
	a.wg.Go(a.run)
	return a, nil
}

func (a *askers) run() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		for len(a.queue) == 0 && !a.ended {
			a.more.Wait()
		}
		if a.ended {
			return
		}
		s := a.queue[0]
		a.mu.Unlock()
		whose := a.whose(s)
		a.mu.Lock()
		if len(a.queue) == 0 || a.queue[0] != s {
			continue // dropped
		}
		s.whose = whose
		a.queue = a.queue[1:]
		a.done = append(a.done, s)
		a.ready.Store(true)
		a.wake()
	}
}

// whose looks for the socket that has sent the SYN.
func (a *askers) whose(s *syn) redirect.Ownership {
	var sock sockdiag.Socket
	err := a.diag.Lookup(sockdiag.Tuple{Local: s.client, Remote: s.server}, &sock)
	if err != nil || sock.Inode == 0 {
		return redirect.Unknown // the application has given up
	}
	return a.owns([]uint32{sock.Inode})
}

func (a *askers) ask(s *syn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, s)
	a.more.Signal()
}

// has reports whether the same SYN is being asked about.
func (a *askers) has(s *syn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.queue {
		if o.pair == s.pair && o.seq == s.seq {
			return true
		}
	}
	return false
}

// busy reports whether a SYN is being asked about.
func (a *askers) busy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.queue)+len(a.done) > 0
}

// answers returns the SYNs about which there is an answer, in their order.
func (a *askers) answers() []*syn {
	if !a.ready.Swap(false) {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	done := a.done
	a.done = nil
	return done
}

// drop returns all SYNs and forgets them.
func (a *askers) drop() []*syn {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := append(a.done, a.queue...)
	a.done, a.queue = nil, nil
	return all
}

func (a *askers) close() error {
	a.mu.Lock()
	a.ended = true
	a.more.Signal()
	a.mu.Unlock()
	a.wg.Wait()
	if a.diag == nil {
		return nil
	}
	return a.diag.Close()
}
