package netproxy

import (
	"fmt"
	"time"

	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// replies is what a replay knows of the datagrams that the application sends.
type replies struct {
	// again counts those that have come.
	again uint64
	// fresh are those that are not owed; they wait for the end of the replay.
	fresh []sending
	// late: the application does not send what it had, or not when it had.
	late bool
}

// crashDatagrams forgets what the dead application was given, which is in the
// journal, and what it sent and nobody got, which it will send again.
func (p *Proxy) crashDatagrams() error {
	u := p.udp
	if u == nil {
		return nil
	}
	u.due = true
	if err := u.out.Receive(p.onReply); err != nil {
		return fmt.Errorf("netproxy: %w", err)
	}
	if u.rep != nil {
		u.replies = append(u.rep.fresh, u.replies...)
	}
	for _, r := range u.replies {
		p.packetVerdict(u.out, r.packet, nfqueue.Drop)
	}
	u.replies, u.rep = u.replies[:0], nil
	clear(u.owed)
	clear(u.ports)
	kept := u.waiting[:0]
	for _, d := range u.waiting {
		if d.again {
			u.held -= len(d.payload)
			continue
		}
		kept = append(kept, d)
	}
	clear(u.waiting[len(kept):])
	u.waiting = kept
	return nil
}

// expectReplies prepares the comparison of what the application sends again.
func (u *udpState) expectReplies(plan *replay.Plan) {
	u.rep = &replies{}
	clear(u.owed)
	for _, r := range plan.Replies {
		u.owed[r]++
	}
}

// receive gives the application a datagram again and waits until it has taken it.
func (p *Proxy) receive(d *replay.Datagram) error {
	if p.udp == nil {
		return nil // it was recorded under another configuration
	}
	if err := p.awaitReplies(d.Sent); err != nil {
		return err
	}
	e := p.udp.endpoint(d.Dest.Port())
	if err := p.awaitSocket(e); err != nil {
		return err
	}
	in := &arrival{source: d.Source, dest: d.Dest, payload: d.Payload, pos: d.Position, again: true, recorded: true, passed: time.Now()}
	e.push(in)
	p.rep.fed += int64(len(d.Payload))
	p.sendAgain(in)
	for i := 1; len(e.inflight) > 0; i++ {
		if err := p.pollOrder(); err != nil {
			return err
		}
		if p.udp.tracked && i < spinTurns && i%1024 != 0 {
			if i%256 == 0 && !schedYield() {
				i = spinTurns
			}
			continue
		}
		if err := p.turn(50); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
		if len(e.inflight) == 0 || time.Since(in.passed) < p.udp.patience() || time.Since(e.looked) < p.udp.patience() {
			continue
		}
		if err := p.findIn(e); err != nil {
			return err
		}
		if now := time.Now(); now.Sub(in.passed) > StallAfter || p.asleep(now) {
			return fmt.Errorf("%w: nobody takes a datagram to %s", ErrStalled, d.Dest)
		}
	}
	return p.checkReplay()
}

// awaitSocket waits until the application has a socket on a port.
func (p *Proxy) awaitSocket(e *endpoint) error {
	for deadline := time.Now().Add(StallAfter); e.sockets == 0; {
		if _, err := p.udp.look(e); err != nil {
			return err
		}
		if e.sockets > 0 {
			return nil
		}
		if now := time.Now(); now.After(deadline) || p.asleep(now) {
			return fmt.Errorf("%w: nobody has a socket on UDP port %d", ErrStalled, e.port)
		}
		if err := p.turn(2000); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
	}
	return nil
}

// awaitReplies waits until the application has sent n datagrams again: in the
// recorded run they had gone before the next one came. One that sends by a timer
// of its own is waited for once.
func (p *Proxy) awaitReplies(n uint64) error {
	rep := p.udp.rep
	for deadline := time.Now().Add(settleLimit); rep.again < n && !rep.late; {
		if err := p.turn(50); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
		rep.late = time.Now().After(deadline)
	}
	return nil
}

// compareReplies swallows what was sent in the recorded run. The rest may be new,
// or something else than was sent: that shows at the end.
func (p *Proxy) compareReplies() {
	u := p.udp
	for _, r := range u.replies {
		u.rep.again++
		if u.settle(r.Reply) {
			p.swallowReply(r)
			continue
		}
		u.rep.fresh = append(u.rep.fresh, r)
	}
	u.replies = u.replies[:0]
}

// settleReplies decides about what was sent in the replay and had not been before.
// Where as much is owed to the same receiver, it is the same answer, come out
// differently; the receiver has the first.
func (p *Proxy) settleReplies() error {
	u := p.udp
	if u == nil || u.rep == nil {
		return nil
	}
	owed := map[uint64][]replay.Reply{}
	for r, n := range u.owed {
		for range n {
			owed[r.Flow] = append(owed[r.Flow], r)
		}
	}
	var fresh, differing []sending
	for _, r := range u.rep.fresh {
		if left := owed[r.Flow]; len(left) > 0 {
			owed[r.Flow] = left[1:]
			u.settle(left[0])
			differing = append(differing, r)
			continue
		}
		fresh = append(fresh, r)
	}
	p.stats.differing.Add(uint64(len(differing)))
	if len(differing) > 0 && !p.rep.tolerate {
		return fmt.Errorf("%w: %d datagrams", ErrDiverged, len(differing))
	}
	for _, r := range differing {
		p.opts.Log.Error("netproxy: a datagram differs from what its receiver was sent; dropped")
		p.swallowReply(r)
	}
	for _, r := range fresh {
		p.passReply(r)
	}
	u.rep = nil
	return nil
}

// resumeDatagrams gives the living application what its dead self had not taken,
// before what has come since.
func (p *Proxy) resumeDatagrams(plan *replay.Plan) {
	u := p.udp
	if u == nil {
		return
	}
	u.owedUntil, u.due = time.Now().Add(owedFor), true
	list := make([]*arrival, 0, len(plan.Untaken)+len(u.waiting))
	for _, d := range plan.Untaken {
		u.held += len(d.Payload)
		list = append(list, &arrival{source: d.Source, dest: d.Dest, payload: d.Payload, pos: d.Position, again: true})
	}
	u.waiting = append(list, u.waiting...)
}

// owedFor is how long after a replay the application may still send again what it
// had sent before the crash.
const owedFor = 5 * time.Second
