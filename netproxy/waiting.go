package netproxy

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// waitingConn is a connection that was opened during a recovery. Its leg is made
// when the application lives again.
type waitingConn struct {
	fd     int
	client netip.AddrPort
	until  time.Time // reset then; zero: wait on
}

// NodeConns says what the node's own connections, which are mostly probes, meet
// during a recovery.
type NodeConns struct {
	// Addrs returns the node's addresses. Called at the beginning of a recovery,
	// on the caller's goroutine; nil: nothing is special about the node.
	Addrs func() []netip.Addr
	// Hold is how long each such connection waits for the application; then it is
	// reset, as the dead application's kernel would have done at once.
	Hold time.Duration
}

// findNode learns the node's addresses, not on the loop: its commands run in the
// container's namespace.
func (p *Proxy) findNode() map[netip.Addr]bool {
	if p.opts.Node.Addrs == nil {
		return nil
	}
	node := map[netip.Addr]bool{}
	for _, a := range p.opts.Node.Addrs() {
		node[a.Unmap()] = true
	}
	return node
}

// acceptWaiting takes new connections during a recovery, so that those of the
// node can be told from others'.
func (p *Proxy) acceptWaiting() {
	p.acceptDue = false
	for _, l := range p.listeners() {
		for len(p.conns)+len(p.waiting) < p.opts.MaxConnections {
			fd, client, e := acceptNB(l)
			if e == unix.ECONNABORTED {
				continue
			}
			if e != 0 {
				break // none is left; what else it may be, accept tells when live
			}
			w := waitingConn{fd: fd, client: client}
			if p.node[client.Addr()] {
				if p.opts.Node.Hold <= 0 {
					closeReset(fd)
					continue
				}
				w.until = time.Now().Add(p.opts.Node.Hold)
			}
			p.waiting = append(p.waiting, w)
		}
	}
}

// expireWaiting resets the node's connections that have waited for long enough.
func (p *Proxy) expireWaiting() {
	if len(p.waiting) == 0 {
		return
	}
	now, kept := time.Now(), p.waiting[:0]
	for _, w := range p.waiting {
		if !w.until.IsZero() && now.After(w.until) {
			closeReset(w.fd)
			continue
		}
		kept = append(kept, w)
	}
	p.waiting = kept
}

// openWaiting makes the legs of what came during a recovery.
func (p *Proxy) openWaiting() {
	list := p.waiting
	p.waiting = nil
	for _, w := range list {
		p.open(w.fd, w.client)
	}
}

func (p *Proxy) closeWaiting() {
	for _, w := range p.waiting {
		closeReset(w.fd)
	}
	p.waiting = nil
}
