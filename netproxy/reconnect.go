package netproxy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/replay"
)

func pairPort(a netip.AddrPort, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), port)
}

// matchExpected gives the SYN to the recorded connection that it opens again:
// the one with the same local port, or else the first to the same server. It
// reports whether there is one.
func (p *Proxy) matchExpected(s *syn) bool {
	free := func(c *conn) bool { return c.dest == s.server && c.syn == nil && !c.gone }
	i := slices.IndexFunc(p.egress.expect, func(c *conn) bool { return free(c) && c.client == s.client })
	if i < 0 {
		i = slices.IndexFunc(p.egress.expect, free)
	}
	if i < 0 {
		return false
	}
	p.join(p.egress.expect[i], s)
	return true
}

// join makes the SYN that of the connection.
func (p *Proxy) join(c *conn, s *syn) {
	c.client, c.syn = s.client, s
	p.enter(c)
	p.egress.opening[s.pair] = c
}

// takeSYN finds a SYN for a recorded connection, and reports whether there is
// one. Which of several that go to the same server belongs to which connection
// shows when the application writes (identify).
func (p *Proxy) takeSYN(c *conn) bool {
	list := p.egress.syns
	i := slices.IndexFunc(list, func(s *syn) bool { return s.server == c.dest && s.client == c.client })
	if i < 0 {
		i = slices.IndexFunc(list, func(s *syn) bool { return s.server == c.dest })
	}
	if i < 0 {
		return false
	}
	p.join(c, list[i])
	p.egress.syns = slices.Delete(list, i, i+1)
	return true
}

// expectAgain prepares for the connections that the application will open again.
func (p *Proxy) expectAgain(plan *replay.Plan) {
	for _, pc := range plan.Outgoing {
		if c := p.rep.conns[pc.ID]; c.upstream == nil {
			p.rep.outgoing = append(p.rep.outgoing, c)
		}
	}
	p.egress.expect = slices.Clone(p.rep.outgoing)
	for _, pc := range plan.Conns {
		c := p.rep.conns[pc.ID]
		if c.dir != dirOut || c.upstream != nil {
			continue
		}
		p.rep.servers[c.dest]++
		if pc.Image != nil {
			p.rep.outgoing = append(p.rep.outgoing, c)
		}
	}
}

// opened takes a connection off those that are expected.
func (e *egress) opened(c *conn) {
	e.expect = slices.DeleteFunc(e.expect, func(o *conn) bool { return o == c })
}

// reconnect carries out the step at which the server had answered.
func (p *Proxy) reconnect(c *conn, s *replay.Step) error {
	begun, pooled := time.Now(), p.rep.servers[c.dest] > 1
	err := p.awaitOpen(c, func() bool {
		p.feedAhead()
		if pooled && s.Kind == replay.Connect && time.Since(begun) > poolLimit {
			return false
		}
		return c.unopened && c.syn == nil && !p.takeSYN(c)
	})
	if err != nil || c.diverged || !c.unopened {
		return err
	}
	if s.Kind == replay.Fail {
		p.refuseConn(c, s.Errno)
		return p.checkReplay()
	}
	c.connected = true
	if c.syn == nil {
		return nil // rejoin grants it if it comes
	}
	p.grant(c)
	return p.awaitOpen(c, func() bool { return c.unopened })
}

// poolLimit is how long a connection to a server to which there are others is
// waited for: the application may take one of them this time.
const poolLimit = 50 * time.Millisecond

// aheadAfter is how long a step waits before the application is given input out
// of its order.
const aheadAfter = 50 * time.Millisecond

// feedAhead delivers the next input that may be delivered, if the present step
// has waited for long. Its own step, when it comes, finds it done. It is needed
// when the record says of the input that the present step depends on that it was
// taken later, or not at all: with the serial order source a crash can come
// between taking and seeing, and of two that are seen at once the order is guessed if
// one of them had lost its turn; and answers are not read in the order in which locks
// were given back.
func (p *Proxy) feedAhead() {
	now := time.Now()
	if !p.src.Serial() && !p.rep.plan.Arranged || now.Sub(p.rep.begun) < aheadAfter {
		return
	}
	if (p.turns.now != nil || !p.src.Serial()) && now.Sub(p.rep.begun) < turnLimit && (p.opts.Idle == nil || !p.still(now, aheadQuiet)) {
		return // it may yet be taken
	}
	p.rep.begun = now
	seen := map[uint32]bool{}
	for i := p.rep.at + 1; i < len(p.rep.plan.Steps); i++ {
		s := &p.rep.plan.Steps[i]
		if s.Kind == replay.Receive {
			continue
		}
		c := p.rep.conns[s.Conn.ID]
		if seen[c.id] || s.Upto <= c.inSent {
			continue
		}
		seen[c.id] = true
		if s.Kind != replay.Feed && s.Kind != replay.Tail || !legOpen(c) || c.diverged || c.outPos < s.Gate {
			continue
		}
		c.unidentified = false
		if n := p.deliver(c, s.Conn.Slice(c.inSent, s.Upto)); n > 0 {
			p.rep.fed += int64(n)
			p.rep.ahead = time.Now()
		}
		return
	}
}

// rejoin looks for other legs for the connections that lost theirs to those
// whose they turned out to be.
func (p *Proxy) rejoin() {
	for _, c := range slices.Clone(p.egress.expect) {
		if c.connected && c.syn == nil && p.takeSYN(c) {
			p.grant(c)
		}
	}
}

// awaitOpen waits while a condition holds. Of a connection that was given up, every
// further step would wait as long.
func (p *Proxy) awaitOpen(c *conn, waiting func() bool) error {
	begun := time.Now()
	for !c.diverged && waiting() {
		if err := p.turn(50); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
		limit := p.stallLimit()
		if slices.ContainsFunc(p.rep.detached, func(n *conn) bool { return n.dest == c.dest }) {
			limit = p.strayLeft() // that one was probably meant, and came out differently
		}
		if now := time.Now(); c.gone || now.Sub(begun) > limit || p.asleep(now) {
			if !p.rep.tolerate {
				return fmt.Errorf("%w: the application does not open connection %d to %s again", ErrStalled, c.id, c.dest)
			}
			p.differ(c)
			return nil
		}
	}
	return p.checkReplay()
}

// checkStray looks for a connection that the application opens in a replay and
// has no record of, and that may be what the replay waits for. While differences
// are tolerated it is refused.
func (p *Proxy) checkStray() error {
	if len(p.egress.syns) == 0 || time.Since(p.rep.since) < strayLimit {
		return nil
	}
	for i, s := range p.egress.syns {
		recorded := func(c *conn) bool { return c.dest == s.server && c.syn == nil }
		if time.Since(s.at) < strayLimit || slices.ContainsFunc(p.egress.expect, recorded) {
			continue
		}
		if !p.rep.tolerate {
			return fmt.Errorf("%w: the application opens a connection to %s that it had not opened", ErrDiverged, s.server)
		}
		p.opts.Log.WithField("server", s.server).Error("netproxy: connection that has no record; refused")
		p.stats.differing.Add(1)
		p.refuse(s, unix.ECONNREFUSED)
		p.egress.syns = slices.Delete(p.egress.syns, i, i+1)
		return nil
	}
	return nil
}

// expireExpected ends recorded connections that the application has not opened
// again.
func (p *Proxy) expireExpected(now time.Time) {
	e := p.egress
	if p.phase != live || len(e.expect) == 0 || now.Before(e.expectUntil) {
		return
	}
	for _, c := range e.expect {
		if c.gone {
			continue
		}
		if !c.ghost() {
			p.opts.Log.WithFields(connFields(c)).Error("netproxy: the recovered application does not open its connection again; ended")
		}
		p.abandon(c)
	}
	e.expect = nil
}
