package netproxy

import "github.com/crsc-io/crsc/journal"

// outbox holds what may leave only after a commit: output for clients, and the
// ends of streams, which come after the output before them, and new connections to
// servers.
type outbox struct {
	arena []byte // the output's bytes, as they were read
	used  int    // of the arena
	items []outItem
	ends  []*conn
	dials []*conn // connections to servers, to be begun
	// datagrams for the application, and packets with those that it sent.
	datagrams []*arrival
	replies   []uint32
	// upto is the journal position that must be committed first.
	upto journal.Position
}

// holds reports whether something waits.
func (b *outbox) holds() bool {
	return len(b.items) > 0 || len(b.ends) > 0 || len(b.dials) > 0 || len(b.datagrams) > 0 || len(b.replies) > 0
}

type outItem struct {
	c    *conn
	data []byte // in the arena
}

const arenaSize = 512 << 10

func newOutbox() *outbox { return &outbox{arena: make([]byte, arenaSize)} }

// left is the room in the arena.
func (b *outbox) left() int { return len(b.arena) - b.used }

func (b *outbox) put(c *conn, data []byte) {
	c.boxed++
	b.items = append(b.items, outItem{c, data})
}

// maxBehind is how much may be appended while the journal is being written
// before input is left to the clients' sockets, in bytes.
const maxBehind = 8 << 20

// commitRound commits what this round appended, if something waits for it, and lets
// out what a commit allows. In class disk a commit takes a while: the round's
// outbox is put aside until it has ended, and rounds go on with another.
func (p *Proxy) commitRound(idle bool) error {
	if !idle && !p.behind && p.stalled == nil && !p.mustCommit() {
		p.box.used = 0 // what was read was swallowed
		return nil
	}
	if p.failed != nil {
		p.letOutAll()
		return nil
	}
	if p.phase != live {
		// Whoever changed the phase relies on everything being settled.
		if err := p.commit(); err != nil {
			return err
		}
		p.letOutAll()
		return nil
	}
	if p.stalled != nil {
		if gone, err := p.retry(); !gone {
			return err
		}
	}
	j := p.opts.Journal
	if _, err := j.CommitBehind(p.wakeFn); err != nil {
		return p.stall(err)
	}
	if p.behind && j.Committed() >= p.away.upto {
		p.landed()
	}
	if p.behind {
		return nil // the commit of an earlier round is under way
	}
	p.committed = j.End()
	if j.Committed() == j.End() {
		p.letOut(p.box)
		return nil
	}
	p.box.upto = j.End()
	p.box, p.away, p.behind = p.away, p.box, true
	return nil
}

// landed lets out what waited for the commit that has just ended, and lets
// those go on that had to stop meanwhile.
func (p *Proxy) landed() {
	p.behind = false
	p.letOut(p.away)
	p.unpark()
}

// letOutAll lets everything out, in order.
func (p *Proxy) letOutAll() {
	if p.behind {
		p.landed()
	}
	p.letOut(p.box)
	p.resume()
}

// letOut sends the output and passes the ends on.
func (p *Proxy) letOut(b *outbox) {
	for i := range b.items {
		it := &b.items[i]
		it.c.boxed--
		if !it.c.gone && !it.c.diverged {
			p.sendOutput(it.c, it.data)
		}
		*it = outItem{}
	}
	b.items, b.used = b.items[:0], 0
	for i, c := range b.ends {
		p.reapClosed(c)
		b.ends[i] = nil
	}
	b.ends = b.ends[:0]
	for i, c := range b.dials {
		p.dial(c)
		b.dials[i] = nil
	}
	b.dials = b.dials[:0]
	if len(b.datagrams) > 0 {
		p.letInDatagrams(b.datagrams)
		clear(b.datagrams)
		b.datagrams = b.datagrams[:0]
	}
	if len(b.replies) > 0 {
		p.letOutReplies(b.replies)
		b.replies = b.replies[:0]
	}
}

// park stops a connection until the commit under way has ended.
func (p *Proxy) park(c *conn) {
	if !c.parked {
		c.parked = true
		p.parked = append(p.parked, c)
	}
}

// congested reports that so much waits to be written to the journal that input
// must wait, too.
func (p *Proxy) congested() bool {
	return p.stalled != nil || p.behind && p.opts.Journal.Pending() > maxBehind
}
