package netproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

// egress intercepts the connections that the application opens. It belongs to
// the loop.
//
// A connection is opened in five steps: its SYN waits in the queue and the Open
// record is journaled; after the commit the server is dialled; its answer is
// journaled (Consumed at offset 0, or a Close before it); the SYN is let go to
// our listener, or answered in the server's place; the listener's socket
// becomes the leg.
type egress struct {
	queue  *nfqueue.Conn
	listen *redirect.Listener
	askers *askers
	due    bool // queue or listener have something
	// opening are connections whose SYN is here and whose leg does not stand.
	opening map[pair]*conn
	// syns wait until somebody may decide about them.
	syns []*syn
	// unclear wait until the processes are there that may have sent them: CRIU
	// connects again what was being connected when the images were made.
	unclear []*syn
	// handshakes counts the granted connections in opening.
	handshakes int
	// undecided: a server has answered while nothing could be granted.
	undecided bool
	// dropped is when a SYN was last dropped that nobody could decide about.
	dropped time.Time
	// expect are recorded connections that the application has not opened
	// again, oldest first, until expectUntil.
	expect      []*conn
	expectUntil time.Time
	looked      time.Time // when expire last looked
	ended       []endedFlow
	// repeats are the requests that the application may yet make again, by server.
	repeats map[netip.AddrPort]*repeats
	past    past
	// sessions is about what the trackers of connections take of memory, in bytes.
	sessions int
	// diag looks for the sockets that have sent SYNs.
	diag    *sockdiag.Conn
	refused map[pair]refusal
}

// pair names a connection by the ends of the application's socket.
type pair struct{ client, server netip.AddrPort }

// syn is one that waits in the queue.
type syn struct {
	pair
	id     uint32
	seq    uint32
	packet []byte
	at     time.Time
	whose  redirect.Ownership
	early  bool // it was asked about when the processes were not all there
}

// endedFlow is a redirected flow whose connection has ended.
type endedFlow struct {
	flow redirect.Flow
	at   time.Time
}

const (
	// flowLinger is how long the packets of an ended connection are steered: both
	// ends are in this kernel, and settle it at once.
	flowLinger = 5 * time.Second
	// handshakeLimit is for the handshake of a granted connection; a longer one
	// means that the application has given up.
	handshakeLimit = time.Second
	// strayLimit is how long a replay waits for the record of a connection that
	// the application opens.
	strayLimit = 2 * time.Second
	// synAgain is by when a SYN that was dropped has come again: after a second, or
	// after another two.
	synAgain = 3500 * time.Millisecond
	// reopenLimit is how long after a replay a recorded connection waits for the
	// application to open it again.
	reopenLimit = 10 * time.Second
)

// openEgress makes queue and listener.
func (p *Proxy) openEgress() (err error) {
	e := &egress{opening: map[pair]*conn{}, refused: map[pair]refusal{}, repeats: map[netip.AddrPort]*repeats{}}
	p.egress = e // release closes what there is
	if e.queue, err = nfqueue.Open(p.netns); err != nil {
		return err
	}
	if e.listen, err = redirect.Listen(p.netns, 0); err != nil {
		return err
	}
	if e.diag, err = sockdiag.Open(p.netns); err != nil {
		return err
	}
	e.askers, err = newAskers(p.netns, p.opts.Owns, p.wake)
	return err
}

func (e *egress) close() error {
	var errs []error
	if e.askers != nil {
		errs = append(errs, e.askers.close())
	}
	if e.diag != nil {
		errs = append(errs, e.diag.Close())
	}
	if e.queue != nil {
		errs = append(errs, e.queue.Close())
	}
	if e.listen != nil {
		errs = append(errs, e.listen.Close())
	}
	return errors.Join(errs...)
}

// turnEgress takes SYNs and finished handshakes, and decides what can be
// decided now.
func (p *Proxy) turnEgress() error {
	e := p.egress
	if e.due {
		e.due = false
		if err := e.queue.Receive(p.onPacket); err != nil {
			return fmt.Errorf("netproxy: %w", err)
		}
		p.acceptLegs(e.listen.FD4)
		p.acceptLegs(e.listen.FD6)
	}
	for _, s := range e.askers.answers() {
		switch {
		case s.whose == redirect.Ours:
			p.arrived(s)
		case s.early:
			e.unclear = append(e.unclear, s)
		case s.whose == redirect.Theirs:
			p.verdict(s.id, nfqueue.Accept, 0)
		default: // it is sent again
			e.dropped = time.Now()
			p.verdict(s.id, nfqueue.Drop, 0)
		}
	}
	if !p.down.Load() {
		for _, s := range e.unclear {
			p.askWhose(s)
		}
		e.unclear = nil
	}
	if p.phase == live && len(e.syns) > 0 {
		p.dropGivenUp()
		list := e.syns
		e.syns = nil
		for _, s := range list {
			p.connect(s)
		}
	}
	if p.phase == live && e.undecided {
		e.undecided = false
		for _, c := range e.opening {
			p.decide(c)
		}
	}
	if p.phase == replaying {
		p.admitVirtual()
		p.rejoin()
		p.admitStrays()
		p.reconsider()
		p.serveDue()
		p.relax()
	}
	if len(e.opening)+len(e.expect)+len(e.ended)+len(e.syns)+len(e.refused)+len(e.repeats)+e.handshakes > 0 {
		p.expireEgress()
	}
	return nil
}

// onPacket is told of a packet in the queue.
func (p *Proxy) onPacket(pk *nfqueue.Packet) {
	s, ok := parseSYN(pk)
	if !ok {
		p.verdict(pk.ID, nfqueue.Accept, 0) // the rule sends nothing else
		return
	}
	if c := p.egress.opening[s.pair]; c != nil {
		switch {
		case c.syn != nil && c.syn.seq != s.seq:
			// The application has given up, and tries again from the same port.
			p.abandon(c)
		case c.granted:
			p.verdict(s.id, nfqueue.Accept, redirect.MarkSteer)
			return
		default: // sent again while it waits
			p.verdict(s.id, nfqueue.Drop, 0)
			return
		}
	}
	if r, ok := p.egress.refused[s.pair]; ok && r.seq == s.seq {
		p.refuse(s, r.errno) // it was under way when the answer was given
		return
	}
	again := func(o *syn) bool { return o.pair == s.pair && o.seq == s.seq }
	switch {
	case slices.ContainsFunc(p.egress.syns, again) || slices.ContainsFunc(p.egress.unclear, again) || p.egress.askers.has(s):
		p.verdict(s.id, nfqueue.Drop, 0)
	case p.opts.Owns != nil:
		p.askWhose(s)
	default:
		p.arrived(s)
	}
}

// askWhose has looked up whose the SYN is.
func (p *Proxy) askWhose(s *syn) {
	s.early = p.down.Load()
	p.egress.askers.ask(s)
}

// arrived takes a SYN of the application.
func (p *Proxy) arrived(s *syn) {
	if p.phase == live {
		p.connect(s)
		return
	}
	p.egress.syns = append(p.egress.syns, s)
}

// verdict decides about a packet. It only fails for one that the kernel has
// dropped meanwhile.
func (p *Proxy) verdict(id uint32, v nfqueue.Verdict, mark uint32) {
	if err := p.egress.queue.Verdict(id, v, mark); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: outgoing connection")
	}
}

// parseSYN reads the addresses of a SYN, and keeps a copy of it.
func parseSYN(pk *nfqueue.Packet) (*syn, bool) {
	client, server, ok := pk.Ends()
	if !ok {
		return nil, false
	}
	b := pk.Payload
	tcp := ip6HeaderLen
	if client.Addr().Is4() {
		tcp = int(b[0]&15) * 4
	}
	if len(b) < tcp+tcpHeaderLen {
		return nil, false
	}
	return &syn{
		pair: pair{client, server}, id: pk.ID, seq: binary.BigEndian.Uint32(b[tcp+4:]),
		packet: slices.Clone(b), at: time.Now(),
	}, true
}

const (
	ip6HeaderLen = 40
	tcpHeaderLen = 20
)

// expireEgress looks now and then for what will not come any more.
func (p *Proxy) expireEgress() {
	e := p.egress
	if now := time.Now(); now.Sub(e.looked) >= handshakeLimit/4 {
		e.looked = now
		for _, c := range e.opening {
			if c.granted && now.Sub(c.grantedAt) > handshakeLimit {
				p.abandon(c)
			}
		}
		p.dropGivenUp()
		p.abandonGivenUp(now)
		p.forgetRefusals(now)
		p.expireExpected(now)
		p.expireRepeats(now)
		p.expireRaises(now)
		p.forgetFlows(now)
	}
}

// abandon ends a connection that the application no longer wants.
func (p *Proxy) abandon(c *conn) {
	c.closing[legSide] = true
	p.appendClose(c, dirOut, true, 0)
	p.destroy(c, true)
}

// forgetFlows takes the flows of connections that have ended out of the rules.
func (p *Proxy) forgetFlows(now time.Time) {
	e := p.egress
	n := 0
	for n < len(e.ended) && now.Sub(e.ended[n].at) > flowLinger {
		n++
	}
	if n == 0 {
		return
	}
	var flows []redirect.Flow
	for _, f := range e.ended[:n] {
		if !p.flowInUse(f.flow) {
			flows = append(flows, f.flow)
		}
	}
	e.ended = append(e.ended[:0], e.ended[n:]...)
	if err := p.rules.ForgetFlows(flows); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: outgoing connections that have ended")
	}
}

// flowInUse reports whether a living connection has the same ports and server.
func (p *Proxy) flowInUse(f redirect.Flow) bool {
	c := p.byApp[flowKey(f)]
	return c != nil && !c.gone
}

// egressGone frees what an outgoing connection that ends held of ours.
func (p *Proxy) egressGone(c *conn) {
	e := p.egress
	at := pair{c.client, c.dest}
	if e.opening[at] == c {
		delete(e.opening, at)
		if c.syn != nil && !c.granted {
			p.verdict(c.syn.id, nfqueue.Drop, 0)
		}
	}
	if c.granted {
		c.granted = false
		e.handshakes--
	}
	if c.detached {
		c.detached = false
		e.handshakes--
	}
	c.syn = nil
	if c.session != nil {
		e.sessions -= c.sessionSize()
		e.past.keep(c.id, c.session, p.opts.Journal)
	}
	e.opened(c)
	if c.redirected {
		e.ended = append(e.ended, endedFlow{flow: c.flow(), at: time.Now()})
	}
}

// crashEgress forgets what the dead application had begun to open. What was
// journaled of it is opened again in the replay.
func (p *Proxy) crashEgress() {
	e := p.egress
	for _, s := range slices.Concat(e.syns, e.unclear, e.askers.drop()) {
		p.verdict(s.id, nfqueue.Drop, 0)
	}
	for _, c := range e.opening {
		if c.syn != nil && !c.granted {
			p.verdict(c.syn.id, nfqueue.Drop, 0)
		}
		c.syn, c.granted = nil, false
	}
	for _, c := range p.slots {
		if c != nil && c.detached {
			p.abandon(c)
		}
	}
	clear(e.opening)
	e.syns, e.unclear, e.expect, e.handshakes = nil, nil, nil, 0
}
