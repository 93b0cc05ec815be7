package netproxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

// ErrPhase is returned when a call does not fit what the proxy is doing, for
// example Hold while the application is being replayed.
var ErrPhase = errors.New("netproxy: not possible in this phase")

// HoldResult says how a Hold went.
type HoldResult struct {
	// Quiet: all delivered input was consumed. Otherwise some of it is in the
	// application's receive queues; the checkpoint is right all the same, but
	// the order in which that input is processed after a restore is not known.
	Quiet bool
	Took  time.Duration
}

// Hold stops delivering input and opening connections, and waits until the
// application has consumed what was delivered, for at most limit. Output goes
// on. The clients notice nothing but the delay. Release ends it.
func (p *Proxy) Hold(ctx context.Context, limit time.Duration) (HoldResult, error) {
	var res HoldResult
	err := p.do(ctx, "hold", func() error {
		if p.phase != live {
			return fmt.Errorf("%w: hold", ErrPhase)
		}
		start := time.Now()
		p.phase, p.rawOutput = holding, true
		for {
			if err := p.turn(30); err != nil {
				p.stallOrFault(err)
				p.release2live()
				return err
			}
			if p.inflight == 0 && !p.handshaking() && !p.datagramsInFlight() {
				res.Quiet = true
				break
			}
			if time.Since(start) >= limit || p.abort.Load() {
				break
			}
		}
		p.acknowledge()
		res.Took = time.Since(start)
		return nil
	})
	return res, err
}

// acknowledge sees how much input has arrived, and makes our kernel acknowledge what it has of the application's
// output: it may delay that by 40 ms. An acknowledgement that arrives while CRIU
// reads the application's send queue makes the dump fail, and what is not
// acknowledged has to be sent again after a restore.
func (p *Proxy) acknowledge() {
	for _, c := range p.slots {
		if c != nil && legOpen(c) {
			p.ackLeg(c)
			// Before the freeze, so that the image holds at least this much.
			c.receivedIn = c.inSent - min(c.inSent, unacked(c.legFD))
		}
	}
}

func (p *Proxy) ackLeg(c *conn) {
	if c.ackedOut == c.outPos {
		return
	}
	c.ackedOut = c.outPos
	// It only fails for a socket that is gone, which the next read tells.
	_ = tcprepair.AckNow(c.legFD)
}

// Cut says where every connection stands. The container's tasks must be frozen,
// after a Hold. After a fault of the journal it is begun anew, and with the
// checkpoint the container is protected again. What the application had written until then is read first, so
// that output before and after the cut never share a record.
func (p *Proxy) Cut(ctx context.Context, checkpoint uint64) (*replay.Table, error) {
	var t *replay.Table
	err := p.do(ctx, "cut", func() error {
		if p.phase != holding {
			return fmt.Errorf("%w: cut", ErrPhase)
		}
		if err := p.drainOnce(cutDrain); err != nil {
			p.stallOrFault(err)
			return err
		}
		if p.handshaking() {
			return fmt.Errorf("%w: cut while the application opens a connection", ErrPhase)
		}
		if p.asking() {
			return fmt.Errorf("%w: cut while the application makes a request again", ErrPhase)
		}
		if err := p.checkUrgent(); err != nil {
			return err
		}
		if p.failed != nil {
			if err := p.heal(); err != nil {
				return err
			}
		}
		t = p.table()
		p.armTrigger()
		t.Mark = p.opts.Journal.AppendMark(journal.CheckpointBegun, checkpoint)
		t.ScanFrom = min(t.ScanFrom, t.Mark)
		return p.commit()
	})
	return t, err
}

// Release lets input flow again. It may be called as soon as Cut has returned:
// what arrives at the frozen application's sockets then lies after the cut. It
// does nothing when no Hold is in force.
func (p *Proxy) Release(ctx context.Context) error {
	return p.do(ctx, "release", func() error {
		if p.phase != holding {
			return nil
		}
		// Read once more what the application wrote before it was frozen: its
		// kernel may have sent on after the cut.
		if err := p.drainOnce(releaseDrain); err != nil {
			p.stallOrFault(err)
		}
		p.release2live()
		return nil
	})
}

// release2live ends holding and looks at every connection again.
func (p *Proxy) release2live() {
	p.phase, p.rawOutput, p.triggered = live, false, false
	for _, c := range p.slots {
		if c != nil {
			p.activate(c)
		}
	}
}

// A frozen application writes no more, so a drain ends; at a release it may be
// running again, and write for ever.
const (
	cutDrain     = time.Second
	releaseDrain = 5 * time.Millisecond
)

// drainOnce takes everything that is readable from all legs, journals it and
// passes it on.
func (p *Proxy) drainOnce(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for more := true; more && !p.hush.on && !p.abort.Load() && time.Now().Before(deadline); {
		for _, c := range p.slots {
			if c == nil || c.legFD < 0 || c.connecting || c.eof[legSide] || c.failed[legSide] || !c.out.empty() {
				continue
			}
			// The edge may still be waiting in epoll.
			c.readable[legSide] = true
			p.activate(c)
		}
		if err := p.turn(0); err != nil {
			return err
		}
		more = false
		for _, c := range p.slots {
			more = more || c != nil && c.legFD >= 0 && !c.connecting && c.readable[legSide] && c.out.empty() && !c.eof[legSide] && !c.failed[legSide]
		}
	}
	return nil
}

// table writes down every connection. Mark is not set.
func (p *Proxy) table() *replay.Table {
	t := &replay.Table{ScanFrom: p.opts.Journal.End(), NextID: p.nextID}
	if p.udp != nil {
		p.udp.enterInto(t)
	}
	for _, c := range p.slots {
		if c == nil || c.kept {
			continue
		}
		// What the application's kernel has acknowledged is in the image.
		c.dropSpans(max(c.inConsumed, c.receivedIn))
		if len(c.spans) > 0 {
			t.ScanFrom = min(t.ScanFrom, c.spans[0].pos)
		}
		appClosed := c.eof[legSide] || c.failed[legSide] || c.legFD < 0 && !c.unopened
		if c.dir == journal.In && c.inConsumed == 0 && c.outPos == 0 && !appClosed {
			// Perhaps not accepted yet: then it is opened again.
			t.ScanFrom = min(t.ScanFrom, c.acceptedAt)
		}
		c.floor = c.outPos + uint64(len(c.late.bytes())) + unread(c.legFD)
		t.Conns = append(t.Conns, replay.ConnState{
			ID: c.id, Direction: c.dir, Client: c.client, Dest: c.dest, LegPort: c.legPort,
			InBase: c.inBase, OutBase: c.outBase,
			InSent: c.inSent, InConsumed: c.inConsumed, OutRead: c.outPos,
			Opened: c.acceptedAt, Opening: c.unopened, AppClosed: appClosed, InClosed: c.shut[legSide],
		})
	}
	return t
}

// handshaking reports whether a granted connection has no leg yet.
func (p *Proxy) handshaking() bool { return p.egress != nil && p.egress.handshakes > 0 }

// unacked is how much of what was written to the leg the application's kernel
// has not acknowledged, in bytes.
func unacked(fd int) uint64 {
	if fd < 0 {
		return 0
	}
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil || n < 0 {
		return 0
	}
	return uint64(n)
}

// unread is how much of the application's output waits in the leg, in bytes.
func unread(fd int) uint64 {
	if fd < 0 {
		return 0
	}
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil || n < 0 {
		return 0
	}
	return uint64(n)
}

// heal begins the journal anew after a fault. What it held is useless, since
// records are missing behind it; the cut that follows needs none of it.
func (p *Proxy) heal() error {
	j := p.opts.Journal
	for _, c := range p.slots {
		if c != nil && unacked(c.legFD) > 0 {
			// What is under way to the application would be in neither the image
			// nor the journal.
			return fmt.Errorf("%w: begin the journal anew while input is under way on connection %d", ErrPhase, c.id)
		}
	}
	if err := j.Renew(); err != nil {
		return fmt.Errorf("netproxy: begin the journal anew: %w", err)
	}
	p.failed = nil
	if p.udp != nil {
		p.recordAgain()
	}
	for _, c := range p.slots {
		if c == nil {
			continue
		}
		c.spans, c.acceptedAt = c.spans[:0], j.End()
		// What has not been delivered yet lies behind the cut.
		if data := c.in.bytes(); len(data) > 0 {
			c.spans = append(c.spans, span{end: c.inRead, pos: j.AppendInput(c.id, c.inSent, c.outSent, data)})
			if c.urgent != nil {
				for _, at := range c.urgent.in {
					j.AppendUrgent(c.id, at)
				}
			}
		}
	}
	if err := p.commit(); err != nil {
		p.fault(err)
		return err
	}
	return nil
}
