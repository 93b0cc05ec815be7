package netproxy

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/datagram"
	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

// udpState is the UDP of the container. What is sent to its sockets waits in a
// packet queue until it is journaled and the journal committed, so that whatever
// follows from it is covered; what it sends waits in another until everything
// before is committed. Nothing is sent again but in a recovery. It belongs to the
// loop.
type udpState struct {
	in, out *nfqueue.Conn
	again   *datagram.Injector
	diag    *sockdiag.Conn
	tracked bool // the order source tells what the application takes
	due     bool // the queues are readable
	ports   map[uint16]*endpoint
	round   uint64

	// waiting have come and are not yet given to the application, in order.
	waiting []*arrival
	held    int // their size, in bytes
	// sent counts what the application has sent; replies wait to be looked at.
	sent    uint64
	replies []sending
	// owed are replies that were sent in the recorded run, and that the restored
	// application may send again until owedUntil.
	owed      map[replay.Reply]int
	owedUntil time.Time
	rep       *replies
	ids       []uint32 // scratch
}

// arrival is a datagram for the application.
type arrival struct {
	source, dest netip.AddrPort
	payload      []byte
	pos          journal.Position // of its record; 0: none
	packet       uint32           // waits in the queue, unless
	again        bool             // it is to be sent again
	passed       time.Time        // when it was given to the application
	recorded     bool             // that it was taken is in the journal
}

// endpoint is a port of the application's.
type endpoint struct {
	port uint16
	// inflight were given to the application, which has not taken them yet, in
	// order. With several sockets on the port there is at most one.
	inflight []*arrival
	size     int // their cost
	// limit is how much of that may be in flight, so that no buffer overflows.
	limit   int
	sockets int
	looked  time.Time // at the sockets
	changed time.Time // when inflight was last seen to change
	full    uint64    // round in which there was no more room
}

// sending is a datagram of the application's in the queue.
type sending struct {
	packet uint32
	replay.Reply
}

const (
	// maxHeld bounds what waits for the application, in bytes and in number;
	// beyond it datagrams are dropped, as a full socket buffer would.
	maxHeld       = 4 << 20
	maxHeldNumber = 2048
	// queueBuffer is for the messages of one round.
	queueBuffer = 4 << 20
	// perDatagram is what the kernel needs for a small one, and a little more.
	perDatagram = 2304
	// unseenAfter is from when on a datagram in flight is looked for.
	unseenAfter = 2 * time.Second
	// lookPause is between two such looks.
	lookPause = 100 * time.Millisecond
	// lookEvery bounds how often the sockets of a port are looked at meanwhile, in
	// a replay; untrackedEvery where only that tells what was taken.
	lookEvery      = time.Second
	untrackedEvery = 300 * time.Microsecond
	// lookAgain is how long what was seen of a port's sockets is believed.
	lookAgain = time.Second
)

// patience is how long one that is sent again may take to arrive.
func (u *udpState) patience() time.Duration {
	if u.tracked {
		return lookEvery
	}
	return untrackedEvery
}

// cost is what a datagram takes of a socket's buffer, at most.
func (d *arrival) cost() int { return perDatagram + 2*len(d.payload) }

// openDatagrams makes the queues and what tells of sockets.
func (p *Proxy) openDatagrams() (err error) {
	u := &udpState{ports: map[uint16]*endpoint{}, owed: map[replay.Reply]int{}, tracked: !p.src.Serial()}
	p.udp = u // release closes what there is
	o := nfqueue.Options{Whole: true, ReceiveBuffer: queueBuffer}
	if u.in, err = nfqueue.OpenWith(p.netns, o); err != nil {
		return err
	}
	if u.out, err = nfqueue.OpenWith(p.netns, o); err != nil {
		return err
	}
	if u.diag, err = sockdiag.Open(p.netns); err != nil {
		return err
	}
	u.again, err = datagram.Open(p.netns, redirect.MarkOwn)
	return err
}

func (u *udpState) close() error {
	var errs []error
	for _, q := range []*nfqueue.Conn{u.in, u.out} {
		if q != nil {
			errs = append(errs, q.Close())
		}
	}
	if u.diag != nil {
		errs = append(errs, u.diag.Close())
	}
	if u.again != nil {
		errs = append(errs, u.again.Close())
	}
	return errors.Join(errs...)
}

// endpoint finds or makes the entry of a port.
func (u *udpState) endpoint(port uint16) *endpoint {
	e := u.ports[port]
	if e == nil {
		e = &endpoint{port: port}
		u.ports[port] = e
	}
	return e
}

// look counts the sockets of a port and what waits in them, in bytes.
func (u *udpState) look(e *endpoint) (queued int, err error) {
	e.looked, e.sockets, e.limit = time.Now(), 0, 0
	err = u.diag.DumpUDP(e.port, func(s *sockdiag.Socket) error {
		e.sockets++
		queued += int(s.RecvQueue)
		if n := int(s.ReceiveBuffer) / 2; e.sockets == 1 || n < e.limit {
			e.limit = n
		}
		return nil
	})
	if e.sockets != 1 || !u.tracked {
		e.limit = 0 // one at a time
	}
	return queued, err
}

// room reports whether the application can be given the datagram now.
func (e *endpoint) room(d *arrival) bool {
	return len(e.inflight) == 0 || e.size+d.cost() <= e.limit
}

func (e *endpoint) push(d *arrival) {
	e.inflight = append(e.inflight, d)
	e.size += d.cost()
	e.changed = time.Now()
}

func (e *endpoint) pop() *arrival {
	d := e.inflight[0]
	e.inflight[0] = nil
	e.inflight = e.inflight[1:]
	e.size -= d.cost()
	e.changed = time.Now()
	return d
}

// datagramsInFlight reports whether the application has been given datagrams that it has
// not taken.
func (p *Proxy) datagramsInFlight() bool {
	return p.udp != nil && p.udp.anyInFlight()
}

func (u *udpState) anyInFlight() bool {
	for _, e := range u.ports {
		if len(e.inflight) > 0 {
			return true
		}
	}
	return false
}

// pace is how long the loop may sleep while datagrams wait for the application to
// take others, or nothing but a look tells whether it has, in microseconds. An
// application that does not take any is looked at less often. 0: there are none.
func (u *udpState) pace(ph phase) int64 {
	if ph != live {
		return 0
	}
	wait := int64(0)
	if len(u.waiting) > 0 && !u.anyInFlight() {
		return 100
	}
	for _, e := range u.ports {
		if len(e.inflight) == 0 || u.tracked && len(u.waiting) == 0 {
			continue
		}
		if time.Since(e.changed) < unseenAfter {
			return 100
		}
		wait = 5000
	}
	return wait
}

// enterInto writes down what the application has not taken, and how much it has
// sent.
func (u *udpState) enterInto(t *replay.Table) {
	t.Sent = u.sent
	note := func(d *arrival) {
		if d.pos != 0 {
			t.Datagrams = append(t.Datagrams, d.pos)
			t.ScanFrom = min(t.ScanFrom, d.pos)
		}
	}
	for _, e := range u.ports {
		for _, d := range e.inflight {
			note(d)
		}
	}
	for _, d := range u.waiting {
		note(d)
	}
}

// recordAgain journals what the application has not taken, in a journal that was
// begun anew.
func (p *Proxy) recordAgain() {
	note := func(d *arrival) {
		d.pos = 0
		p.recordDatagram(d)
	}
	for _, e := range p.udp.ports {
		for _, d := range e.inflight {
			note(d)
		}
	}
	for _, d := range p.udp.waiting {
		if d.again {
			note(d)
		}
	}
}

// watchDatagrams registers the queues; what is left in them while the application
// is dead must not wake the loop again.
func (p *Proxy) watchDatagrams() error {
	if p.udp == nil {
		return nil
	}
	for _, fd := range []int{p.udp.in.FD(), p.udp.out.FD()} {
		if err := p.watch(fd, slotDatagrams, 0, unix.EPOLLIN|unix.EPOLLET); err != nil {
			return err
		}
	}
	return nil
}
