package netproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("netproxy: closed")

// phase is what the loop does with data.
type phase int32

const (
	live      phase = iota
	holding         // before a dump: input stays with the clients
	crashed         // the application is dead; clients wait
	replaying       // the tail is being fed
)

// Proxy serves one container. Its methods may be called from any goroutine;
// those that change the phase (Hold, Cut, Release, Crash, Rebuild, Replay) must
// be called by one goroutine at a time.
type Proxy struct {
	opts  Options
	netns int
	// inside is the way into netns.
	inside inside
	rules  *redirect.Redirect
	ports  *tcprepair.Ports
	src    order.Source
	// onEvent and wakeFn are the methods onConsumed and wake, bound once.
	onEvent func(order.Event)
	wakeFn  func()
	// srcReason says why the order source is not the preferred one.
	srcReason string

	epfd   int
	wakeMu sync.Mutex // guards wakefd against its end
	wakefd int
	listen *redirect.Listener
	egress *egress   // nil: outgoing connections pass untouched
	udp    *udpState // nil: UDP passes untouched

	cmds   chan command
	done   chan struct{}
	closed sync.Once
	abort  atomic.Bool // ends a replay that is under way
	down   atomic.Bool // from a crash until the restored application runs
	// firstSuspect is when the first leg of the present crash ended, in
	// nanoseconds of Unix time; 0 for none.
	firstSuspect atomic.Int64

	// Below: owned by the loop.
	phase     phase
	slots     []*conn
	freeSlots []int32
	conns     map[uint32]*conn
	// clientPorts are the clients whose ports a leg might have, with their number
	// of connections.
	clientPorts map[netip.AddrPort]int
	byApp       map[uint64]*conn // by appKey; also those that have ended of late
	late        []*conn          // a ring of them
	lateAt      int
	nextID      uint32
	gen         int32
	active      []*conn
	spare       []*conn // the other buffer of active
	inflight    int
	closes      []*conn
	suspects    []*conn
	askedAt     time.Time // when Dying was last asked about the suspects
	suspectAt   time.Time
	turns       turns // of the serial order
	rawOutput   bool  // journal output bytes instead of hashes
	failed      error // the journal's error: relay only
	stalled     error // the journal's error: nothing moves until it has gone
	retryAt     time.Time
	fullAt      time.Time // when OnNearlyFull was last called
	acceptDue   bool
	spin        spin
	delays      delays
	node        map[netip.Addr]bool // the node's addresses; nil: they are like others
	waiting     []waitingConn
	orphansAt   time.Time // when half-closed connections were last looked at
	vigil       vigil
	draining    bool // read legs whatever their clients take
	// crashes is what the source had counted when somebody last asked about it.
	crashes uint64
	hush    hush
	// ghostsUntil is when connections without a client are dropped.
	ghostsUntil time.Time
	scratch     []byte
	box         *outbox // of this round
	away        *outbox // waits for the commit under way, if behind is set
	behind      bool
	parked      []*conn // wait for the commit under way
	pool        bufPool
	events      []unix.EpollEvent
	rep         *replayState
	committed   journal.Position // the end at the last commit
	// What the journal held at the last cut, for the trigger.
	markRecords, markBytes uint64
	triggered              bool

	stats counters
}

// counters are written by the loop and read by anybody.
type counters struct {
	conns       atomic.Int64
	accepted    atomic.Uint64
	opened      atomic.Uint64
	held        atomic.Int64
	inBytes     atomic.Uint64
	outBytes    atomic.Uint64
	inRecords   atomic.Uint64
	swallowed   atomic.Uint64
	differing   atomic.Uint64
	journalErrs atomic.Uint64
	datagrams   atomic.Uint64
	dropped     atomic.Uint64
	repeated    atomic.Uint64
}

// Stats is a snapshot of the proxy's counters.
type Stats struct {
	Connections int64  // open now
	Accepted    uint64 // since the start
	Opened      uint64 // by the application, since the start
	Held        int64  // bytes kept for ends that do not take them
	Journal     int64  // bytes of records that the journal holds
	InBytes     uint64 // input bytes journaled
	OutBytes    uint64 // output bytes fingerprinted
	InRecords   uint64 // input records journaled
	Swallowed   uint64 // output bytes that clients already had
	Differing   uint64 // stretches of output that came out differently in a replay
	// Datagrams were journaled; Dropped were not given to the application for
	// lack of room; Repeated were sent by it again, and kept from their receivers.
	Datagrams, Dropped, Repeated uint64

	Order       string // tracepoint or serial
	OrderReason string // why not the preferred source; empty when it is
}

// New puts the rules and listeners into the namespace and starts the loop.
// When it returns, connections to the container's listening ports go through
// the proxy.
func New(opts Options) (_ *Proxy, err error) {
	if err := opts.defaultsAndValidate(); err != nil {
		return nil, err
	}
	p := &Proxy{
		opts: opts, epfd: -1, wakefd: -1, netns: -1, inside: inside{home: -1},
		cmds: make(chan command, 16), done: make(chan struct{}),
		conns: map[uint32]*conn{}, byApp: map[uint64]*conn{}, clientPorts: map[netip.AddrPort]int{}, nextID: 1,
		scratch: make([]byte, inputBudget), box: newOutbox(), away: newOutbox(),
		events: make([]unix.EpollEvent, 512),
	}
	p.onEvent, p.wakeFn, p.spin.delay = p.onConsumed, p.wake, p.delays.since
	p.pool.limit = opts.MaxMemory
	defer func() {
		if err != nil {
			p.release()
		}
	}()
	if p.netns, err = unix.FcntlInt(uintptr(opts.NetNS), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("netproxy: duplicate the namespace's descriptor: %w", err)
	}
	if p.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("netproxy: epoll_create1: %w", err)
	}
	if p.wakefd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("netproxy: eventfd: %w", err)
	}
	if err = p.setup(); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go p.run(ready)
	if err = <-ready; err != nil {
		return nil, err
	}
	return p, nil
}

// Stats may be called at any time.
func (p *Proxy) Stats() Stats {
	s := Stats{
		Connections: p.stats.conns.Load(), Accepted: p.stats.accepted.Load(), Opened: p.stats.opened.Load(),
		Held: p.stats.held.Load(), Journal: p.opts.Journal.Since(p.opts.Journal.Start()),
		InBytes: p.stats.inBytes.Load(), OutBytes: p.stats.outBytes.Load(),
		InRecords: p.stats.inRecords.Load(), Swallowed: p.stats.swallowed.Load(),
		Datagrams: p.stats.datagrams.Load(), Dropped: p.stats.dropped.Load(), Repeated: p.stats.repeated.Load(),
		Differing: p.stats.differing.Load(), Order: "tracepoint", OrderReason: p.srcReason,
	}
	if p.src.Serial() {
		s.Order = "serial"
	}
	return s
}

// Abort makes a Rebuild or Replay that is under way end with ErrAborted: the
// application died again or the orchestrator wants the container gone.
func (p *Proxy) Abort() {
	p.abort.Store(true)
	p.wake()
}

// Close ends all connections, removes the rules and releases everything. Where
// the container still runs, its clients are reset.
func (p *Proxy) Close() error {
	p.Abort()
	p.closed.Do(func() { close(p.cmds) })
	p.wake()
	<-p.done
	return nil
}

// Intercepted lists the destinations that are steered to the proxy now.
func (p *Proxy) Intercepted() ([]netip.AddrPort, error) { return p.rules.Intercepted() }
