package netproxy

import (
	"slices"
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
	queue []*syn // to be asked about, and those in work
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
		batch := slices.Clone(a.queue[:min(len(a.queue), askBatch)])
		a.mu.Unlock()
		whose := a.judge(batch)
		a.mu.Lock()
		if len(a.queue) == 0 || a.queue[0] != batch[0] {
			continue // dropped
		}
		for i, s := range batch {
			s.whose = whose[i]
		}
		a.queue = a.queue[len(batch):]
		a.done = append(a.done, batch...)
		a.ready.Store(true)
		a.wake()
	}
}

// askBatch bounds how many SYNs are looked into at once.
const askBatch = 256

// judge looks for the sockets that have sent the SYNs. Mostly all are the
// application's: then one look through its descriptors is enough, however many of
// its connections wait.
func (a *askers) judge(batch []*syn) []redirect.Ownership {
	whose := make([]redirect.Ownership, len(batch)) // Unknown: the application has given up
	inodes := make([]uint32, 0, len(batch))
	at := make([]int, 0, len(batch))
	for i, s := range batch {
		var sock sockdiag.Socket
		if err := a.diag.Lookup(sockdiag.Tuple{Local: s.client, Remote: s.server}, &sock); err == nil && sock.Inode != 0 {
			inodes, at = append(inodes, sock.Inode), append(at, i)
		}
	}
	all := redirect.Unknown
	if len(inodes) > 1 {
		all = a.owns(inodes)
	}
	for n, i := range at {
		if whose[i] = all; all != redirect.Ours {
			whose[i] = a.owns(inodes[n : n+1])
		}
	}
	return whose
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
