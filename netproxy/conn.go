package netproxy

import (
	"net/netip"

	"github.com/cespare/xxhash/v2"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/timeouts"
)

// side tells the two sockets of a connection apart in epoll's user data.
type side int32

const (
	clientSide side = iota
	legSide
)

// conn is one connection between the container and the network: our socket
// towards the network (the client, or the server that the application has
// connected to) and the leg. It belongs to the loop.
type conn struct {
	id     uint32
	dir    journal.Direction // In: a client opened it
	slot   int32             // index in Proxy.slots
	gen    int32             // tells reuses of a slot apart
	client netip.AddrPort    // who opened it: the remote client, or the application's own address
	dest   netip.AddrPort    // as the client addressed the container, or the remote server
	// legPort is the source port of the socket that we opened: the leg, or our
	// socket towards the server.
	legPort uint16

	outbound
	urgent *urgent // nil: none yet
	// timeouts of the application's socket that our other one has, too.
	timeouts timeouts.Timeouts

	clientFD int // -1: the client is gone (a ghost that lives for the replay only)
	legFD    int // -1: no leg
	// connecting: the leg's handshake is not finished.
	connecting bool

	// Stream offsets, in bytes since the connection was opened.
	inRead     uint64 // read from the client and journaled
	inSent     uint64 // written to the leg
	inConsumed uint64 // taken by the application
	outPos     uint64 // read from the present leg's stream
	outRead    uint64 // ever read from a leg, and journaled: what the client has or will get
	outSent    uint64 // written to the client
	receivedIn uint64 // input that the application's kernel had at the last Hold
	ackedOut   uint64 // acknowledged at once for a checkpoint
	// Sequence numbers of offset 0: inBase in the application's receive
	// direction, outBase in its send direction.
	inBase, outBase uint32
	// origin is where the application's socket began to count what it received.
	origin uint32

	in   pending // input not yet written to the leg
	out  pending // output not yet written to the client
	late pending // read from the leg after a process had crashed
	// floor is the output offset below which the last cut lies: a restored
	// application does not write these bytes again.
	floor uint64

	readable   [2]bool // level kept over edge-triggered epoll, by side
	hup        [2]bool // a FIN or an error is waiting behind the data
	writable   [2]bool
	eof        [2]bool // FIN was read from this side
	failed     [2]bool // RST or another error was seen on this side
	shut       [2]bool // FIN was sent to this side
	closing    [2]bool // the close from this side was journaled and may be passed on
	spun       spun
	suspect    bool             // the leg ended and the application may be dying
	inflight   bool             // counted in Proxy.inflight
	listed     bool             // on the active list
	parked     bool             // on the list of those that wait for a commit
	boxed      int              // output items in outboxes
	endAt      journal.Position // of the record of the application's close
	waiting    bool             // in turns.wait
	overslept  bool             // in turns.passed: the application slept in its turn
	gone       bool             // taken out of the slots
	noted      bool             // counted in Proxy.clientPorts
	borrowed   bool             // legPort does not come from the allocator
	acceptedAt journal.Position
	// spans tell where in the journal the input is that the application has
	// perhaps not received yet, oldest first.
	spans []span

	// Replay: what the application is expected to produce again.
	expect []replay.Output
	// queued is the output offset up to which the image's send queue holds what
	// is sent again: the same bytes, recorded before the cut.
	queued   uint64
	digest   xxhash.Digest
	digestOn bool // digest covers the stretch from its beginning
	dated    bool // the stretch began as an answer of HTTP/1
	diverged bool
	// consumedMark is the input offset up to which consumption is recorded
	// already: events below it are not journaled a second time.
	consumedMark uint64
}

// local and peer are the ends of the application's socket, as it sees them.
func (c *conn) local() netip.AddrPort {
	if c.dir == journal.Out {
		return c.client
	}
	return c.dest
}

func (c *conn) peer() netip.AddrPort {
	if c.dir == journal.Out {
		return c.dest
	}
	return c.legAddr()
}

// appKey identifies the application's socket as an event of the order source
// does.
func (c *conn) appKey() uint64 {
	peer := c.peer()
	return appKey(c.local().Port(), peer.Port(), order.PeerOf(peer.Addr()))
}

func appKey(app, leg uint16, peer uint32) uint64 {
	return uint64(app)<<48 | uint64(leg)<<32 | uint64(peer)
}

// span is a stretch of input and the position of its first record.
type span struct {
	end uint64 // input offset behind it
	pos journal.Position
}

const (
	// spanBytes is how much input one span covers.
	spanBytes = 64 << 10
	// spansKept is from how many spans on those that are not needed are looked for.
	spansKept = 32
)

// noteSpan remembers that n bytes of input, from inRead on, were journaled at pos.
func (c *conn) noteSpan(pos journal.Position, n uint64) {
	if c.inConsumed == c.inRead {
		c.spans = c.spans[:0]
	}
	if len(c.spans) >= spansKept {
		c.dropSpans(c.inConsumed)
	}
	k := len(c.spans)
	if k == 0 || c.inRead+n-c.spanStart(k-1) > spanBytes {
		c.spans = append(c.spans, span{pos: pos})
		k++
	}
	c.spans[k-1].end = c.inRead + n
}

// spanStart is the input offset at which span i begins, or a little before.
func (c *conn) spanStart(i int) uint64 {
	if i == 0 {
		return min(c.inConsumed, c.spans[0].end)
	}
	return c.spans[i-1].end
}

// dropSpans forgets what lies before an input offset.
func (c *conn) dropSpans(done uint64) {
	i := 0
	for i < len(c.spans) && c.spans[i].end <= done {
		i++
	}
	c.spans = append(c.spans[:0], c.spans[i:]...)
}

// ghost reports whether no client is behind the connection any more.
func (c *conn) ghost() bool { return c.clientFD < 0 }

// pending is a buffer of bytes that a socket did not take yet. The zero value
// is empty. Its memory comes from the proxy's pool.
type pending struct {
	buf  []byte // from the pool, or larger when a drain had to exceed it
	off  int
	pool *bufPool
}

func (b *pending) empty() bool { return b.off == len(b.buf) }

func (b *pending) bytes() []byte { return b.buf[b.off:] }

// add keeps a copy of data behind what is pending already.
func (b *pending) add(pool *bufPool, data []byte) {
	if len(data) == 0 {
		return
	}
	if b.buf == nil {
		b.buf, b.pool = pool.get(len(data)), pool
	}
	before := cap(b.buf)
	b.buf = append(b.buf, data...)
	pool.held += cap(b.buf) - before
}

// advance drops the first n bytes and returns the memory when all are gone.
func (b *pending) advance(n int) {
	b.off += n
	if b.empty() {
		b.drop()
	}
}

func (b *pending) drop() {
	if b.pool != nil {
		b.pool.put(b.buf)
	}
	*b = pending{}
}

// bufPool is a free list of buffers for one loop; not safe for concurrent use.
type bufPool struct {
	free  [][]byte
	held  int // bytes of buffers that are in use
	limit int // of held, beyond which connections get little at a time
}

const (
	bufSize    = 64 << 10
	bufKeepMax = 256 // buffers kept for reuse: 16 MiB
	// smallShare is what may be read for a connection when memory is scarce.
	smallShare = 4 << 10
)

// share is how much may be read for a connection at a time: what its other end
// does not take has to be kept.
func (p *bufPool) share() int {
	if p.held >= p.limit {
		return smallShare
	}
	return arenaSize
}

func (p *bufPool) get(size int) []byte {
	var b []byte
	switch n := len(p.free); {
	case p.held >= p.limit && size < bufSize:
		b = make([]byte, 0, size)
	case n > 0:
		b = p.free[n-1]
		p.free = p.free[:n-1]
	default:
		b = make([]byte, 0, bufSize)
	}
	p.held += cap(b)
	return b[:0]
}

func (p *bufPool) put(b []byte) {
	p.held -= cap(b)
	// A buffer that a drain made larger goes back to the garbage collector.
	if cap(b) == bufSize && len(p.free) < bufKeepMax {
		p.free = append(p.free, b[:0])
	}
}
