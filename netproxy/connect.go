package netproxy

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/session"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

const dirOut = journal.Out

// outbound is what only connections have that the application opened.
type outbound struct {
	// unopened: the application's kernel does not have the connection yet.
	unopened bool
	syn      *syn // its SYN, until the leg stands
	// dialling: the server has not answered. answered: it has, with errno.
	dialling, answered bool
	errno              unix.Errno
	// granted: the SYN was let go to our listener.
	granted    bool
	grantedAt  time.Time
	redirected bool // its flow is in the rules

	// detached: the leg stands, and the server has not been dialled or has not
	// answered.
	detached bool

	// In a replay: connected says that the record of the server's answer was
	// reached, unidentified that the leg may be another connection's. stray: the
	// application had not opened it.
	connected, unidentified, stray bool
	placement
	// upstream and exchanges are those of a recorded connection, virtual is what a
	// leg has that stands for none.
	upstream  *upstream
	exchanges []*exchange
	virtual   *virtual
	first     []byte // output for the server, when it has answered
	raise     *raise // what is said to it before
	http      bool   // the server speaks HTTP/1
	// session is that of a protocol that has some; nil: it is not known to be.
	session *session.Tracker
	spoke   uint64 // output that the server had been sent when it spoke last

	// Of the time after a replay (repeats): what is kept back of a request, since
	// when, and whether the connection is only kept for an answer.
	asked   []byte
	askedAt time.Time
	kept    bool
	// ahead: it has written a request before it had the answer to the one before, so that
	// it can't be said whether the server owes one. unseen: the end of the request that is
	// under way is not known.
	ahead, unseen bool
}

func (c *conn) flow() redirect.Flow { return redirect.Flow{Server: c.dest, Port: c.client.Port()} }

func flowKey(f redirect.Flow) uint64 {
	return appKey(f.Port, f.Server.Port(), order.PeerOf(f.Server.Addr()))
}

// dialTries bounds the source ports that are tried for one connection to a
// server: those of earlier ones rest in TIME_WAIT.
const dialTries = 64

// connect begins a connection that the application wants to open.
func (p *Proxy) connect(s *syn) {
	if p.matchExpected(s) {
		p.decide(p.egress.opening[s.pair])
		return
	}
	if len(p.conns) >= p.opts.MaxConnections {
		p.verdict(s.id, nfqueue.Drop, 0) // it is sent again
		return
	}
	port, err := p.ports.GetCommon()
	if err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: no source port for a connection to a server")
		p.verdict(s.id, nfqueue.Drop, 0)
		return
	}
	c := &conn{id: p.nextID, dir: dirOut, client: s.client, dest: s.server, legPort: port, clientFD: -1, legFD: -1}
	c.unopened, c.syn = true, s
	p.nextID++
	p.insert(c)
	p.stats.opened.Add(1)
	if p.failed == nil {
		c.acceptedAt = p.opts.Journal.AppendOpen(journal.ConnOpen{
			Conn: c.id, Direction: dirOut, Client: c.client, Server: c.dest, LegPort: c.legPort,
		})
	}
	p.egress.opening[s.pair] = c
	p.box.dials = append(p.box.dials, c)
}

// dial connects to the server, now that the record of the connection is
// committed.
func (p *Proxy) dial(c *conn) {
	if c.gone {
		return
	}
	if err := p.dialServer(c); err != nil {
		c.answered, c.errno = true, errnoOf(err)
		p.decide(c)
	}
}

func (p *Proxy) dialServer(c *conn) error {
	if err := p.inside.enter(); err != nil {
		return err
	}
	defer p.inside.leave()
	for try := 1; ; try++ {
		fd, err := tcprepair.DialServer(netns.Current, tcprepair.Spec{
			Client: pairPort(c.client, c.legPort), App: c.dest, Mark: redirect.MarkOwn,
		})
		if err == nil {
			c.clientFD, c.dialling = fd, true
			return p.watch(fd, c.slot<<1|int32(clientSide), c.gen, connEvents)
		}
		if !errors.Is(err, unix.EADDRINUSE) || try == dialTries {
			return err
		}
		port, perr := p.ports.GetCommon()
		if perr != nil {
			return err
		}
		p.ports.Put(legPeer(c), c.legPort)
		c.legPort = port
	}
}

func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// dialled is called when the server has answered, or it is known that it won't.
func (p *Proxy) dialled(c *conn) {
	e, err := unix.GetsockoptInt(c.clientFD, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		e = int(errnoOf(err))
	}
	if e == 0 && !established(c.clientFD) {
		return
	}
	c.dialling, c.answered, c.errno = false, true, unix.Errno(e)
	p.decide(c)
}

// decide lets the application know what the server has answered.
func (p *Proxy) decide(c *conn) {
	if c != nil && c.detached && c.answered {
		p.joined(c)
		return
	}
	switch {
	case c == nil || c.gone || !c.answered || c.granted || c.syn == nil:
		return
	case p.phase != live:
		p.egress.undecided = true
		return
	case c.errno == 0:
		if p.failed == nil {
			p.opts.Journal.AppendConsumed(c.id, 0)
		}
		p.grant(c)
		return
	}
	if p.failed == nil && tcprepair.Tellable(c.client.Addr(), c.errno) {
		p.opts.Journal.AppendFailed(c.id, uint32(c.errno))
	}
	p.refuseConn(c, c.errno)
}

// refuseConn ends a connection that never was one.
func (p *Proxy) refuseConn(c *conn, errno unix.Errno) {
	p.refuse(c.syn, errno)
	c.syn = nil
	p.destroy(c, true)
}

// grant lets the connection's SYN go to our listener.
func (p *Proxy) grant(c *conn) {
	p.verdict(c.syn.id, nfqueue.Repeat, redirect.MarkGrant)
	p.rules.Granted(c.flow())
	c.granted, c.redirected, c.grantedAt = true, true, time.Now()
	p.egress.handshakes++
}

// acceptLegs takes the application's ends of granted connections.
func (p *Proxy) acceptLegs(listener int) {
	if listener < 0 {
		return
	}
	for range backlog(listener) {
		fd, app, e := acceptNB(listener)
		if e == unix.ECONNABORTED {
			continue
		}
		if e != 0 {
			if e != unix.EAGAIN {
				p.opts.Log.WithError(e).Warn("netproxy: accept an outgoing connection")
			}
			return
		}
		server, e := localName(fd)
		if e != 0 {
			closeReset(fd)
			continue
		}
		c := p.egress.opening[pair{app, server}]
		if c == nil || !c.granted {
			closeReset(fd)
			continue
		}
		p.legStands(c, fd)
	}
}

// legStands joins both sides of an outgoing connection.
func (p *Proxy) legStands(c *conn, fd int) {
	delete(p.egress.opening, pair{c.client, c.dest})
	p.egress.handshakes--
	p.egress.opened(c)
	c.unidentified = p.rep != nil && len(c.expect) > 0
	c.granted, c.unopened, c.syn, c.legFD = false, c.stray, nil, fd
	seqs, err := tcprepair.BaseSeqs(fd, 0)
	if err == nil {
		c.inBase, c.outBase, c.origin = seqs.In-uint32(c.inSent), seqs.Out-uint32(c.outPos), seqs.In
		c.writable[legSide] = true
		p.enter(c)
		err = p.watchLeg(c)
	}
	if err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: leg of an outgoing connection")
		p.abandon(c)
		return
	}
	if c.stray {
		p.strayStands(c)
	}
	p.vigil.meet(c)
	p.activate(c)
}
