package netproxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/order"
)

// command runs on the loop. done is closed after it ran.
type command struct {
	fn   func() error
	err  chan error
	ctx  context.Context
	name string
}

const (
	slotWake   = -1 // epoll user data of the eventfd
	slotListen = -2 // and of the listeners
	slotEgress = -3 // and of what tells of outgoing connections
	// slotDatagrams is that of the queues of datagrams.
	slotDatagrams = -4
)

// do runs fn on the loop and waits for it.
func (p *Proxy) do(ctx context.Context, name string, fn func() error) (err error) {
	defer func() {
		// The channel is closed by Close; sending on it then panics by design
		// of the language, and means ErrClosed here.
		if recover() != nil {
			err = ErrClosed
		}
	}()
	c := command{fn: fn, err: make(chan error, 1), ctx: ctx, name: name}
	select {
	case p.cmds <- c:
	case <-p.done:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("netproxy: %s: %w", name, ctx.Err())
	}
	p.wake()
	select {
	case err := <-c.err:
		return err
	case <-p.done:
		return ErrClosed
	}
}

// wake makes the loop look at its commands. After release it does nothing: the
// descriptor's number may be somebody else's by then.
func (p *Proxy) wake() {
	p.wakeMu.Lock()
	defer p.wakeMu.Unlock()
	if p.wakefd >= 0 {
		// The only failure is a full counter, which wakes as well.
		_, _ = unix.Write(p.wakefd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// run is the loop.
func (p *Proxy) run(ready chan<- error) {
	defer close(p.done)
	err := p.inside.open(p.netns)
	if err == nil {
		err = p.watchFixed()
	}
	ready <- err
	if err != nil {
		return
	}
	defer p.contain()
	for {
		if !p.runCommands() {
			p.lastWords()
			p.release()
			return
		}
		if err := p.turn(p.timeout()); err != nil {
			p.fault(err)
		}
	}
}

func (p *Proxy) watchFixed() error {
	if err := p.watch(p.wakefd, slotWake, 0, unix.EPOLLIN); err != nil {
		return err
	}
	for _, fd := range p.listeners() {
		if err := p.watch(fd, slotListen, 0, unix.EPOLLIN|unix.EPOLLET); err != nil {
			return err
		}
	}
	if err := p.watchDatagrams(); err != nil || p.egress == nil {
		return err
	}
	for _, fd := range []int{p.egress.queue.FD(), p.egress.listen.FD4, p.egress.listen.FD6} {
		if fd < 0 {
			continue
		}
		if err := p.watch(fd, slotEgress, 0, unix.EPOLLIN); err != nil {
			return err
		}
	}
	return nil
}

func (p *Proxy) watch(fd int, slot, gen int32, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: slot, Pad: gen}
	if err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("netproxy: epoll_ctl: %w", err)
	}
	return nil
}

// timeout is how long the loop may sleep, in microseconds.
func (p *Proxy) timeout() int64 {
	switch {
	case len(p.active) > 0 || len(p.closes) > 0 && p.phase == live || p.acceptDue && p.accepting():
		return 0
	case p.turnPace() > 0:
		return p.turnPace()
	case len(p.suspects) > 0 || p.hush.on:
		return 1000
	case len(p.waiting) > 0:
		return 10_000
	case p.vigil.busy() && p.phase == live:
		return vigilPause.Microseconds()
	case p.stalled != nil:
		return retryEvery.Microseconds()
	case p.udp != nil && p.udp.pace(p.phase) > 0:
		return p.udp.pace(p.phase)
	case p.uncommitted() > 0:
		return 10_000 // commit what no output has asked for
	case !p.src.Serial() && (p.inflight > 0 || p.datagramsInFlight()):
		// The ring has no wake-ups; keep it from growing when the application
		// takes input and never answers.
		return 50_000
	}
	return 1_000_000
}

// turn is one round: wait, move input, move output, commit, then let output out.
func (p *Proxy) turn(timeoutUS int64) error {
	n, err := p.waitEvents(timeoutUS)
	if err != nil {
		return fmt.Errorf("netproxy: epoll_wait: %w", err)
	}
	for i := range p.events[:n] {
		p.note(&p.events[i])
	}
	switch {
	case !p.acceptDue:
	case p.accepting():
		p.accept()
	case p.node != nil && (p.phase == crashed || p.phase == replaying):
		p.acceptWaiting()
	}
	p.expireWaiting()
	if p.egress != nil {
		if err := p.turnEgress(); err != nil {
			return err
		}
	}
	if p.udp != nil {
		if err := p.turnDatagrams(); err != nil {
			return err
		}
	}
	work := p.active
	p.active, p.spare = p.spare[:0], work
	for _, c := range work {
		c.listed = false
		p.pumpInput(c)
	}
	for _, c := range work {
		p.pumpOutput(c)
	}
	p.spin.saw(work)
	if err := p.pollOrder(); err != nil {
		return err
	}
	if p.udp != nil {
		if err := p.deliverDatagrams(); err != nil {
			return err
		}
	}
	p.handleCloses()
	if err := p.commitRound(n == 0); err != nil {
		return err
	}
	p.checkSuspects()
	p.checkHush()
	p.checkTrigger()
	p.checkFull()
	p.stats.held.Store(int64(p.pool.held))
	p.expireGhosts()
	p.checkOrphans()
	p.checkVigil()
	return nil
}

// note keeps what epoll said until the data is moved: events are edges.
func (p *Proxy) note(ev *unix.EpollEvent) {
	switch {
	case ev.Fd == slotWake:
		var b [8]byte
		_, _ = unix.Read(p.wakefd, b[:])
		return
	case ev.Fd == slotListen:
		p.acceptDue = true
		return
	case ev.Fd == slotEgress:
		p.egress.due = true
		return
	case ev.Fd == slotDatagrams:
		p.udp.due = true
		return
	}
	c := p.slots[ev.Fd>>1]
	if c == nil || c.gen != ev.Pad {
		return // closed earlier in this round
	}
	s := side(ev.Fd & 1)
	if ev.Events&unix.EPOLLPRI != 0 {
		c.announce(s)
	}
	if ev.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.readable[s] = true
	}
	if ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.hup[s] = true
	}
	if ev.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.writable[s] = true
		if s == legSide && c.connecting {
			p.connected(c)
		}
		if s == clientSide && c.dialling {
			p.dialled(c)
		}
	}
	p.activate(c)
}

// activate puts a connection on the list of those to be looked at.
func (p *Proxy) activate(c *conn) {
	if !c.listed && !c.gone {
		c.listed = true
		p.active = append(p.active, c)
	}
}

// runCommands returns false when the proxy is being closed. Commands run in the
// container's network namespace.
func (p *Proxy) runCommands() bool {
	for {
		select {
		case c, ok := <-p.cmds:
			if !ok {
				return false
			}
			if c.ctx.Err() != nil {
				c.err <- c.ctx.Err()
				continue
			}
			if err := p.inside.enter(); err != nil {
				c.err <- err
				continue
			}
			err := c.fn()
			p.inside.leave()
			c.err <- err
		default:
			return true
		}
	}
}

// pollOrder records what the application has consumed since the last round.
func (p *Proxy) pollOrder() error {
	if p.src.Serial() {
		return p.pollSerial()
	}
	err := p.src.Poll(p.onEvent)
	if errors.Is(err, order.ErrOrderLost) {
		p.opts.Log.WithError(err).Warn("netproxy: order")
		p.opts.OnOrderLost()
		return nil
	}
	return err
}

// lazyBytes bounds the input that waits for a commit when no output does.
const lazyBytes = 128 << 10

// mustCommit reports whether something is about to leave that depends on what
// was appended. Input alone can wait for the output that it causes, and then
// costs no write of its own.
func (p *Proxy) mustCommit() bool {
	return p.box.holds() || p.phase != live || p.uncommitted() > lazyBytes
}

// uncommitted is what was appended since the last commit, in bytes.
func (p *Proxy) uncommitted() journal.Position {
	if p.failed != nil {
		return 0
	}
	return p.opts.Journal.End() - p.committed
}

// commit makes everything appended so far durable in the configured class.
func (p *Proxy) commit() error {
	if p.failed != nil {
		return nil
	}
	j := p.opts.Journal
	p.committed = j.End()
	if p.stalled != nil {
		// Perhaps the fault has gone; ErrFull is none here.
		if err := j.Heal(); err != nil && !errors.Is(err, journal.ErrFull) {
			return err
		}
	}
	return j.CommitBeyond()
}

// fault ends the protection and keeps the connections: from now on the proxy
// only relays. Output that waited for a commit goes out, since nothing will
// ever be replayed.
func (p *Proxy) fault(err error) {
	if p.failed != nil {
		p.opts.Log.WithError(err).Error("netproxy: loop")
		time.Sleep(time.Millisecond) // an error that does not go away must not spin
		return
	}
	p.failed = err
	p.resume()
	p.stats.journalErrs.Add(1)
	for _, c := range p.turns.wait {
		c.waiting = false
		p.activate(c)
	}
	p.turns.reset()
	p.letOutAll()
	p.opts.OnFault(err)
}
