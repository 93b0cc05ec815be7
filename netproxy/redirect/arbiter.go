package redirect

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
)

// arbiter decides about the first connections to listeners that it does not
// know, whose SYNs wait in a packet queue meanwhile. In a pod several
// containers listen in one namespace, and each has a redirection of its own.
type arbiter struct {
	r     *Redirect
	queue *nfqueue.Conn
	stop  int // an eventfd
	diag  *sockdiag.Conn
	wg    sync.WaitGroup
	// theirs are the cookies of listeners that were not the application's, and
	// when that was found.
	theirs map[uint64]time.Time
}

// maxTheirs bounds the memory for others' listeners; beyond it they are asked
// for again.
const maxTheirs = 4096

// maxFaults is how often in a row reading the queue may fail.
const maxFaults = 10

// theirsFor is how long the answer is believed: a process may hand its listener
// over to another.
const theirsFor = time.Minute

func newArbiter(r *Redirect, ns int) (_ *arbiter, err error) {
	a := &arbiter{r: r, stop: -1, theirs: map[uint64]time.Time{}}
	defer func() {
		if err != nil {
			a.release()
		}
	}()
	if a.queue, err = nfqueue.Open(ns); err != nil {
		return nil, err
	}
	if a.diag, err = sockdiag.Open(ns); err != nil {
		return nil, err
	}
	if a.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return a, nil
}

func (a *arbiter) start() {
	a.wg.Go(func() {
		defer a.release()
		if err := a.serve(); err != nil {
			a.r.opts.Log.WithError(err).Error("redirect: new listeners are not intercepted any more")
		}
	})
}

// serve decides about packets until close. The rule bypasses a queue that has
// been closed.
func (a *arbiter) serve() error {
	fds := []unix.PollFd{{Fd: int32(a.queue.FD()), Events: unix.POLLIN}, {Fd: int32(a.stop), Events: unix.POLLIN}}
	for faults := 0; ; {
		_, err := unix.Poll(fds, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if fds[1].Revents != 0 {
			return nil
		}
		if err := a.queue.Receive(a.judge); err == nil {
			faults = 0
		} else if faults++; faults > maxFaults {
			return err
		} else {
			a.r.opts.Log.WithError(err).Warn("redirect: new listeners")
		}
	}
}

// judge decides about one packet. A verdict only fails for a packet that the
// kernel has dropped meanwhile; its sender sends it again.
func (a *arbiter) judge(p *nfqueue.Packet) {
	verdict, mark := a.decide(p)
	if err := a.queue.Verdict(p.ID, verdict, mark); err != nil {
		a.r.opts.Log.WithError(err).Warn("redirect: a new connection")
	}
}

// close ends the arbiter and waits for it.
func (a *arbiter) close() error {
	_, err := unix.Write(a.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	a.wg.Wait()
	return errors.Join(err, unix.Close(a.stop))
}

// release closes what was opened, but for stop.
func (a *arbiter) release() {
	if a.queue != nil {
		a.queue.Close()
	}
	if a.diag != nil {
		a.diag.Close()
	}
}

// decide is asked about a SYN for which the kernel has found a listener, or about
// the answer to one that had passed.
func (a *arbiter) decide(p *nfqueue.Packet) (v nfqueue.Verdict, mark uint32) {
	if d, ok := p.Datagram(); ok {
		return a.decideDatagram(d.Dest), 0
	}
	source, dest, ok := p.Ends()
	if !ok {
		return nfqueue.Accept, 0
	}
	if p.Answers() {
		return a.decideMissed(source, dest)
	}
	whose := a.ownership(a.listeners(dest))
	if p.Loopback {
		mark = MarkGrant
		switch {
		case whose == Theirs, whose == Unknown && !a.r.intercepts(dest):
			// While the application is not there to be asked, what listens at an
			// address that was never its own is another's: CRIU tries the kernel out
			// that way before it restores.
			return nfqueue.Accept, 0
		case whose == Ours:
			switch a.caller(sockdiag.Tuple{Local: source, Remote: dest}) {
			case Ours: // to itself
				return nfqueue.Accept, 0
			case Unknown:
				return nfqueue.Drop, 0
			}
		}
	}
	var err error
	switch whose {
	case Ours:
		err = a.r.Intercept(dest)
	case Theirs:
		err = a.r.leaveAlone(dest)
	default:
		return nfqueue.Drop, 0
	}
	if err != nil {
		a.r.opts.Log.WithError(err).WithField("destination", dest).Warn("redirect: a new listener")
		return nfqueue.Drop, 0
	}
	return nfqueue.Repeat, mark
}

// caller tells whose the socket is that connects over lo.
func (a *arbiter) caller(t sockdiag.Tuple) Ownership {
	var s sockdiag.Socket
	err := a.diag.Lookup(t, &s)
	switch {
	case errors.Is(err, sockdiag.ErrNotFound):
		return Unknown // it has given up
	case err != nil:
		a.r.opts.Log.WithError(err).Warn("redirect: look for a socket")
		return Unknown
	}
	return a.r.opts.Owns([]uint32{s.Inode})
}

// decideDatagram is asked about one for which the kernel has found a socket.
func (a *arbiter) decideDatagram(dest netip.AddrPort) nfqueue.Verdict {
	var err error
	switch a.ownership(a.bound(dest)) {
	case Ours:
		err = a.r.bind(dest)
	case Theirs:
		err = a.r.leaveDatagrams(dest)
	default:
		return nfqueue.Drop
	}
	if err != nil {
		a.r.opts.Log.WithError(err).WithField("destination", dest).Warn("redirect: a new UDP socket")
		return nfqueue.Drop
	}
	return nfqueue.Repeat
}

func (a *arbiter) ownership(ls []sockdiag.Socket, err error) Ownership {
	if err != nil {
		a.r.opts.Log.WithError(err).Warn("redirect: look for a listener")
		return Unknown
	}
	if len(ls) == 0 {
		return Unknown // it has gone meanwhile; the next SYN is refused
	}
	inodes := make([]uint32, len(ls))
	for i := range ls {
		if time.Since(a.theirs[ls[i].Cookie()]) < theirsFor {
			return Theirs
		}
		inodes[i] = ls[i].Inode
	}
	o := a.r.opts.Owns(inodes)
	if o == Theirs {
		if len(a.theirs) >= maxTheirs {
			clear(a.theirs)
		}
		for i := range ls {
			a.theirs[ls[i].Cookie()] = time.Now()
		}
	}
	return o
}

// listeners returns those that the kernel would choose from for dest: a socket
// bound to the very address comes before one bound to any, and one of the same
// family before an IPv6 socket that takes IPv4 too (inet_lookup_listener).
func (a *arbiter) listeners(dest netip.AddrPort) ([]sockdiag.Socket, error) {
	return chosen(dest, func(fn func(*sockdiag.Socket) error) error {
		return a.diag.Dump(sockdiag.Of(sockdiag.Listen), dest.Port(), fn)
	})
}

// bound is the same for datagrams.
func (a *arbiter) bound(dest netip.AddrPort) ([]sockdiag.Socket, error) {
	return chosen(dest, func(fn func(*sockdiag.Socket) error) error {
		return a.diag.DumpUDP(dest.Port(), fn)
	})
}

func chosen(dest netip.AddrPort, dump func(func(*sockdiag.Socket) error) error) ([]sockdiag.Socket, error) {
	var ranked [3][]sockdiag.Socket
	v4 := dest.Addr().Is4()
	err := dump(func(s *sockdiag.Socket) error {
		switch at := s.Local.Addr(); {
		case s.Mark&MarkMask == MarkOwn:
		case at == dest.Addr():
			ranked[0] = append(ranked[0], *s)
		case !at.IsUnspecified():
		case v4 && !s.IPv6, !v4 && s.IPv6:
			ranked[1] = append(ranked[1], *s)
		case v4:
			ranked[2] = append(ranked[2], *s)
		}
		return nil
	})
	for _, ls := range ranked {
		if len(ls) > 0 {
			return ls, err
		}
	}
	return nil, err
}
