package netproxy

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// onReply notes a datagram that the application has sent.
func (p *Proxy) onReply(pk *nfqueue.Packet) {
	d, ok := pk.Datagram()
	if !ok {
		p.packetVerdict(p.udp.out, pk.ID, nfqueue.Accept)
		return
	}
	p.udp.replies = append(p.udp.replies, sending{pk.ID, replay.Reply{Flow: flowOf(d.Source, d.Dest), Hash: xxhash.Sum64(d.Payload)}})
}

// flowOf is the hash of two ends (journal/FORMAT.md).
func flowOf(source, dest netip.AddrPort) uint64 {
	b := make([]byte, 0, 2*(1+16+2))
	for _, a := range [...]netip.AddrPort{source, dest} {
		b = append(b, byte(a.Addr().BitLen()/8+2))
		b = append(b, a.Addr().AsSlice()...)
		b = binary.LittleEndian.AppendUint16(b, a.Port())
	}
	return xxhash.Sum64(b)
}

// passReplies lets datagrams of the application's go, once all before them is
// committed. What it sends because of a crash waits.
func (p *Proxy) passReplies() error {
	u := p.udp
	switch {
	case len(u.replies) == 0 || p.phase == crashed || p.stalled != nil:
		return nil
	case p.phase == replaying:
		p.compareReplies()
		return nil
	case p.hushed():
		return nil
	}
	if !u.tracked {
		// What the application has taken by now is recorded before what follows
		// from it.
		if err := p.findDatagrams(); err != nil {
			return err
		}
		if p.undecided() {
			return nil
		}
	}
	if len(u.owed) > 0 && time.Now().After(u.owedUntil) {
		clear(u.owed)
	}
	for _, r := range u.replies {
		if u.settle(r.Reply) {
			p.swallowReply(r)
			continue
		}
		p.passReply(r)
	}
	u.replies = u.replies[:0]
	return nil
}

// undecided reports whether the application may have taken a datagram of which
// findIn can't tell: one that was sent again just now, or whose socket has died
// with the application. The record that it was taken must not be missing before
// that of the answer; an answer that waits is dropped by a recovery.
func (p *Proxy) undecided() bool {
	for _, e := range p.udp.ports {
		if len(e.inflight) == 0 || e.inflight[0].passed.IsZero() {
			continue
		}
		d := e.inflight[0]
		if d.again && time.Since(d.passed) < p.udp.patience() || e.sockets == 0 && p.opts.Dying() != Alive {
			return true
		}
	}
	return false
}

func (p *Proxy) passReply(r sending) {
	if p.failed == nil {
		p.opts.Journal.AppendDatagramSent(r.Flow, r.Hash)
		p.udp.sent++
	}
	p.box.replies = append(p.box.replies, r.packet)
}

// swallowReply drops one that its receiver has.
func (p *Proxy) swallowReply(r sending) {
	p.packetVerdict(p.udp.out, r.packet, nfqueue.Drop)
	p.stats.repeated.Add(1)
}

// settle takes a reply off those that are owed.
func (u *udpState) settle(r replay.Reply) bool {
	n := u.owed[r]
	if n == 0 {
		return false
	}
	if n == 1 {
		delete(u.owed, r)
	} else {
		u.owed[r] = n - 1
	}
	return true
}

func (p *Proxy) letOutReplies(ids []uint32) {
	if err := p.udp.out.Verdicts(ids, nfqueue.Accept); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: datagrams of the application")
	}
}

// lastReplies lets go what an application that has ended had sent.
func (p *Proxy) lastReplies() {
	if p.udp == nil || p.phase == replaying || p.phase == crashed {
		return
	}
	if err := p.udp.out.Receive(p.onReply); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: last datagrams")
	}
	for _, r := range p.udp.replies {
		p.packetVerdict(p.udp.out, r.packet, nfqueue.Accept)
	}
	p.udp.replies = nil
}
