package netproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

// replayState exists from Rebuild to the end of Replay.
type replayState struct {
	plan      *replay.Plan
	conns     map[uint32]*conn
	detached  []*conn   // opened by it, and not recorded
	held      []*conn   // whose output waits (placement)
	heldAt    uint64    // position when they were looked at last
	heldMove  time.Time // when that had last changed
	heldLook  time.Time // and the time
	upstreams map[netip.AddrPort]*upstream
	due       []*exchange // with a part of an answer to deliver
	probed    []*conn     // the same of questions that have no record
	quiet     struct {    // when anything moved last, and when that was looked at
		at            uint64
		since, looked time.Time
		asked         time.Time // when Idle was, and what it said
		asleep        bool
		slept         time.Time // since when it has said so; zero: it has not
	}
	answered int      // times that an answer was given out of turn (answerAhead)
	passed   int      // steps passed over while the application asks what has no record
	vainly   []uint32 // see CrowdedError
	reset    int      // connections on which it did
	// servers tells how many recorded connections there are to each.
	// stateless are those to which requests were seen that stand alone.
	stateless map[netip.AddrPort]bool
	servers   map[netip.AddrPort]int
	outgoing  []*conn   // recorded as opened by the application, in that order
	at        int       // the step that is being carried out
	started   time.Time // when the first was
	// lag is how much later a step was done than in the record, at most, both counted
	// from their beginnings.
	lag      time.Duration
	since    time.Time // when it began
	begun    time.Time // the same, or when feedAhead last helped
	ahead    time.Time // when feedAhead last delivered something
	diverged []uint32
	vain     time.Duration // what steps took in which connections were given up, but the first
	tolerate bool
	fed      int64
	peers    map[uint32]tcprepair.Peer
}

// Rebuild makes the legs of all connections that the checkpoint's image holds,
// as mirror images of the application's sockets, and prepares the replay. It
// runs after Crash and before the container is restored, so that no packet of
// the restored application finds nobody. peers holds the application's sockets
// by connection number.
func (p *Proxy) Rebuild(ctx context.Context, plan *replay.Plan, peers map[uint32]tcprepair.Peer) error {
	return p.do(ctx, "rebuild", func() error {
		if p.phase != crashed {
			return fmt.Errorf("%w: rebuild", ErrPhase)
		}
		if err := p.destroyLeftovers(); err != nil {
			return err
		}
		p.rep = &replayState{plan: plan, peers: peers, conns: map[uint32]*conn{}, servers: map[netip.AddrPort]int{}, stateless: map[netip.AddrPort]bool{}}
		if p.udp != nil {
			p.udp.expectReplies(plan)
		}
		p.nextID = max(p.nextID, plan.NextID)
		for id, pc := range plan.Conns {
			c, err := p.prepare(id, pc)
			if err != nil {
				return err
			}
			if pc.Image == nil {
				continue
			}
			peer, ok := peers[id]
			if !ok {
				return fmt.Errorf("netproxy: connection %d: no socket state", id)
			}
			if c.ghost() {
				if err := p.steerAgain(c); err != nil {
					return fmt.Errorf("netproxy: connection %d: %w", id, err)
				}
			}
			if err := p.restoreLeg(c, pc, peer); err != nil {
				return fmt.Errorf("netproxy: leg of connection %d (%s): %w", id, c.client, err)
			}
		}
		if p.egress != nil {
			p.recallRepeats(plan)
			p.findUpstreams(plan)
			p.expectAgain(plan)
		}
		return nil
	})
}

// destroyLeftovers removes the dead application's sockets and the TIME_WAITs of
// old legs: their four-tuples are needed again. The client-side sockets carry
// our mark and stay.
func (p *Proxy) destroyLeftovers() error {
	dests, err := p.rules.Intercepted()
	if err != nil {
		return fmt.Errorf("netproxy: %w", err)
	}
	ours := make(map[netip.AddrPort]bool, len(dests))
	for _, d := range dests {
		ours[d] = true
	}
	diag, err := sockdiag.Open(netns.Current)
	if err != nil {
		return fmt.Errorf("netproxy: %w", err)
	}
	defer diag.Close()
	var doomed []sockdiag.Socket
	err = diag.Dump(sockdiag.AllStates&^sockdiag.Of(sockdiag.Listen), 0, func(s *sockdiag.Socket) error {
		// Others in the pod may connect to the application as well.
		leg := ours[s.Remote] && p.isLegPort(s.Local.Port())
		if leg || ours[s.Local] && !p.isClientSide(s) {
			doomed = append(doomed, *s)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("netproxy: list the dead application's sockets: %w", err)
	}
	for i := range doomed {
		if err := diag.Destroy(&doomed[i]); err != nil && !errors.Is(err, sockdiag.ErrNotFound) {
			return fmt.Errorf("netproxy: remove %v of the dead application: %w", doomed[i].Tuple, err)
		}
	}
	return nil
}

// isClientSide tells our sockets towards clients, those not yet accepted
// included, from the application's.
func (p *Proxy) isClientSide(s *sockdiag.Socket) bool {
	if s.Mark&redirect.MarkMask == redirect.MarkOwn {
		return true
	}
	// Half-open and TIME_WAIT sockets show no mark. The application's have a
	// leg's port at the other end.
	return !p.isLegPort(s.Remote.Port())
}

func (p *Proxy) isLegPort(port uint16) bool {
	return p.ports.Has(port)
}

// prepare finds or makes the connection of a plan's entry and sets its stream
// positions to those of the cut.
func (p *Proxy) prepare(id uint32, pc *replay.Conn) (*conn, error) {
	c := p.conns[id]
	end := pc.Start + uint64(len(pc.Input))
	if c == nil {
		c = &conn{
			id: id, dir: pc.Direction, client: pc.Client, dest: pc.Dest, legPort: pc.LegPort, borrowed: true,
			clientFD: -1, legFD: -1, acceptedAt: pc.Opened, inRead: end,
		}
		if n := len(pc.Outputs); n > 0 {
			c.outRead = pc.Outputs[n-1].End()
		} else if pc.Image != nil {
			c.outRead = pc.Image.Acked
		}
		c.outSent = c.outRead
		if p.egress != nil {
			c.session = p.egress.past.of(id)
			p.egress.sessions += c.sessionSize()
		}
		p.insert(c)
	}
	if c.inRead != end {
		return nil, fmt.Errorf("%w: connection %d: %d bytes of input were read, the journal has %d", replay.ErrIncomplete, id, c.inRead, end)
	}
	c.inSent, c.inConsumed, c.outPos, c.queued = 0, 0, 0, 0
	if s := pc.Image; s != nil {
		if c.client != pc.Client && c.redirected {
			// An earlier replay had given it another leg.
			p.egress.ended = append(p.egress.ended, endedFlow{flow: c.flow(), at: time.Now()})
		}
		c.client = pc.Client
		c.inSent, c.inConsumed, c.outPos = s.Received, s.Consumed, s.Acked
		c.inBase, c.outBase = pc.InBase, pc.OutBase
		c.queued = pc.OutRead
		// Read by us, but not in the records any more: nothing to compare.
		c.outRead = max(c.outRead, s.Acked, pc.OutRead)
	}
	c.urgentAgain(pc)
	c.consumedMark = pc.ConsumedMark()
	c.expect, c.digestOn, c.dated, c.diverged = pc.Outputs, false, false, false
	c.eof[legSide], c.failed[legSide] = false, false
	c.unopened = c.dir == dirOut && pc.Image == nil
	c.connected, c.unidentified, c.stray, c.placement = false, false, false, placement{}
	c.upstream, c.exchanges, c.first, c.spoke, c.kept, c.ahead, c.unseen = nil, nil, nil, 0, false, false, false
	p.rep.conns[id] = c
	return c, nil
}

// steerAgain makes sure that what the application sends on a connection comes
// to its leg: the rules may not know it any more, or never have.
func (p *Proxy) steerAgain(c *conn) error {
	if c.dir != dirOut {
		if c.dest.Addr().IsLoopback() {
			return nil // the leg is found without a rule
		}
		return p.rules.Intercept(c.dest)
	}
	if p.egress == nil {
		return errors.New("connections that the application opens are not intercepted")
	}
	c.redirected = true
	return p.rules.Steer(c.flow())
}

func (p *Proxy) restoreLeg(c *conn, pc *replay.Conn, peer tcprepair.Peer) error {
	m, err := tcprepair.MirrorOf(&peer)
	if err != nil {
		return err
	}
	fd, err := tcprepair.Restore(netns.Current, &peer, tcprepair.Options{
		Mark: redirect.MarkSteer, Priority: redirect.LegPriority, SteerMark: redirect.MarkSteer,
	})
	if err != nil {
		return err
	}
	c.legFD, c.origin = fd, m.Snd-peer.InqLen
	c.shut[legSide] = pc.InClosed
	c.writable[legSide] = true
	p.enter(c)
	if c.inSent > c.inConsumed {
		c.inflight = true
		p.inflight++
	}
	return p.watchLeg(c)
}

// dialAgain opens a connection's leg again during a replay. The recorded port
// is preferred, since the application can see it.
func (p *Proxy) dialAgain(c *conn) error {
	if other := p.byApp[c.appKey()]; other != nil && other != c && !other.gone && other.legFD >= 0 {
		if err := p.dialLeg(c); err != nil {
			return err
		}
	} else {
		fd, err := tcprepair.Dial(netns.Current, p.legSpec(c))
		if err != nil {
			return err
		}
		c.legFD = fd
	}
	fd := c.legFD
	c.legFD = -1 // until it is connected
	if err := awaitConnect(fd); err != nil {
		_ = unix.Close(fd)
		return err
	}
	seqs, err := tcprepair.BaseSeqs(fd, 0)
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	c.legFD, c.inBase, c.outBase, c.origin = fd, seqs.In, seqs.Out, seqs.In
	c.connecting, c.writable[legSide] = false, true
	p.enter(c)
	return p.watchLeg(c)
}

// awaitConnect waits for the end of a handshake over loopback.
func awaitConnect(fd int) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(fds, int(dialTimeout.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.ETIMEDOUT
		}
		break
	}
	e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if e != 0 {
		return unix.Errno(e)
	}
	return nil
}
