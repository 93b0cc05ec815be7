package netproxy

import (
	"bytes"
	"fmt"
	"time"

	"github.com/crsc-io/crsc/netproxy/nfqueue"
)

// turnDatagrams takes what has come, in both directions, and lets replies go.
func (p *Proxy) turnDatagrams() error {
	u := p.udp
	if u.due {
		u.due = false
		if err := u.in.Receive(p.onDatagram); err != nil {
			return fmt.Errorf("netproxy: %w", err)
		}
		if p.phase == crashed {
			// What the restored application sends first is looked at in the replay.
			u.due = true
			return nil
		}
		if err := u.out.Receive(p.onReply); err != nil {
			return fmt.Errorf("netproxy: %w", err)
		}
	}
	return p.passReplies()
}

// onDatagram keeps a datagram until the application may have it.
func (p *Proxy) onDatagram(pk *nfqueue.Packet) {
	u := p.udp
	d, ok := pk.Datagram()
	switch {
	case !ok:
		p.packetVerdict(u.in, pk.ID, nfqueue.Accept)
	case pk.Cut:
		// It can't be had as a whole.
		p.packetVerdict(u.in, pk.ID, nfqueue.Accept)
		p.opts.OnUnrecorded("a UDP datagram of about 64 KiB")
	case u.held+len(d.Payload) > maxHeld || len(u.waiting) >= maxHeldNumber || p.crowded():
		p.packetVerdict(u.in, pk.ID, nfqueue.Drop)
		p.stats.dropped.Add(1)
	default:
		u.held += len(d.Payload)
		u.waiting = append(u.waiting, &arrival{source: d.Source, dest: d.Dest, payload: bytes.Clone(d.Payload), packet: pk.ID})
	}
}

// crowded reports that the journal comes so near its limit that its rest is left
// to connections, whose senders can be made to wait.
func (p *Proxy) crowded() bool {
	j := p.opts.Journal
	return p.failed == nil && j.Since(j.Start()) >= j.MaxBytes()/8*7
}

func (p *Proxy) packetVerdict(q *nfqueue.Conn, id uint32, v nfqueue.Verdict) {
	if err := q.Verdict(id, v, 0); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: datagram")
	}
}

// deliverDatagrams gives the application what its sockets have room for. It
// arrives when it is committed.
func (p *Proxy) deliverDatagrams() error {
	u := p.udp
	if err := p.findDatagrams(); err != nil {
		return err
	}
	if len(u.waiting) == 0 || p.phase != live || p.congested() || p.hushed() {
		return nil
	}
	u.round++
	kept := u.waiting[:0]
	for _, d := range u.waiting {
		e := u.endpoint(d.dest.Port())
		if time.Since(e.looked) > lookAgain {
			if _, err := u.look(e); err != nil {
				return err
			}
		}
		if e.full == u.round || !e.room(d) || !u.tracked && p.turnTaken() {
			e.full = u.round // those behind it must not overtake
			kept = append(kept, d)
			continue
		}
		u.held -= len(d.payload)
		p.recordDatagram(d)
		e.push(d)
		if !u.tracked {
			p.turns.overDatagrams = false
			p.turns.begin()
		}
		p.box.datagrams = append(p.box.datagrams, d)
	}
	clear(u.waiting[len(kept):])
	u.waiting = kept
	return nil
}

// recordDatagram journals a datagram that has no record yet.
func (p *Proxy) recordDatagram(d *arrival) {
	if d.pos != 0 || p.failed != nil {
		return
	}
	d.pos = p.opts.Journal.AppendDatagram(d.source, d.dest, p.udp.sent, d.payload)
	p.stats.datagrams.Add(1)
	p.stats.inRecords.Add(1)
	p.stats.inBytes.Add(uint64(len(d.payload)))
}

// letInDatagrams lets the application have what is committed.
func (p *Proxy) letInDatagrams(list []*arrival) {
	u := p.udp
	u.ids = u.ids[:0]
	now := time.Now()
	for _, d := range list {
		d.passed = now
		if !d.again {
			u.ids = append(u.ids, d.packet)
			continue
		}
		p.sendAgain(d)
	}
	if err := u.in.Verdicts(u.ids, nfqueue.Accept); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: datagrams")
	}
}

// sendAgain gives the application a datagram that a dead one had been given. A
// full queue of the kernel's may drop it, like any other.
func (p *Proxy) sendAgain(d *arrival) {
	if err := p.udp.again.Send(d.source, d.dest, d.payload); err != nil {
		p.stats.dropped.Add(1)
		p.opts.Log.WithError(err).Warn("netproxy: datagram of before the crash")
	}
}

// datagramTaken is told by the order source that the application took one.
func (p *Proxy) datagramTaken(port uint16) {
	if p.udp == nil {
		return
	}
	if e := p.udp.ports[port]; e != nil && len(e.inflight) > 0 {
		p.taken(e.pop())
	}
}

func (p *Proxy) taken(d *arrival) {
	if p.failed == nil && d.pos != 0 && !d.recorded {
		p.opts.Journal.AppendDatagramTaken(d.pos)
	}
}

// findDatagrams looks for those in flight where nothing tells what became of
// them: the order source does not, or it has not for a while, because a filter of
// the application's has swallowed them, or because its socket is gone.
func (p *Proxy) findDatagrams() error {
	if p.phase != live && p.phase != holding {
		return nil
	}
	for port, e := range p.udp.ports {
		if len(e.inflight) == 0 || e.inflight[0].passed.IsZero() {
			continue
		}
		if p.udp.tracked && (time.Since(e.inflight[0].passed) < unseenAfter || time.Since(e.looked) < lookPause) {
			continue
		}
		if err := p.findIn(e); err != nil {
			return err
		}
		if e.sockets == 0 && len(e.inflight) == 0 {
			delete(p.udp.ports, port)
		}
	}
	return nil
}

// findIn looks whether what is in flight still waits in a socket.
func (p *Proxy) findIn(e *endpoint) error {
	queued, err := p.udp.look(e)
	if err != nil {
		return err
	}
	if e.sockets == 0 {
		p.nobodyThere(e)
		return nil
	}
	first := e.inflight[0]
	if queued > 0 || first.again && time.Since(first.passed) < p.udp.patience() {
		return nil
	}
	// All that was delivered before the look has been taken; the order source may
	// just be about to say so.
	if err := p.pollOrder(); err != nil {
		return err
	}
	least := time.Duration(0)
	if p.udp.tracked {
		least = lookEvery // it may have been taken just now, and its event be under way
	}
	for len(e.inflight) > 0 && !e.inflight[0].passed.IsZero() && e.looked.Sub(e.inflight[0].passed) > least {
		p.taken(e.pop())
	}
	return nil
}

// nobodyThere gives up what was sent to a socket that the living application has
// closed.
func (p *Proxy) nobodyThere(e *endpoint) {
	if p.phase != live || p.opts.Dying() != Alive || p.hushed() {
		return
	}
	for len(e.inflight) > 0 {
		d := e.pop()
		if err := p.rules.Unbind(d.dest); err != nil {
			p.opts.Log.WithError(err).Warn("netproxy: forget a UDP socket")
		}
	}
}
