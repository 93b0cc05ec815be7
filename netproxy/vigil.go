package netproxy

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/timeouts"
)

const (
	// vigilInterval is how often it is looked after the applications' timeouts.
	vigilInterval = time.Second
	// vigilBatch is how many connections are looked at in one go; each takes some
	// ten microseconds. vigilPause lies between two.
	vigilBatch = 16
	vigilPause = 5 * time.Millisecond
)

// vigil gives our sockets towards clients and servers the timeouts that the
// application has set on its own: its kernel finds the leg alive for ever. What is
// set first counts most, so new connections are looked at a second or two after
// they were opened, and all others in turn.
type vigil struct {
	reader *timeouts.Reader // nil: the kernel does not tell
	// young are the connections of the present interval, due those of the last.
	young, due []*conn
	at, looked time.Time         // when the interval began, and when some were looked at last
	next       int               // slot that is looked at next
	left       int               // how many are looked at in this interval yet
	usual      timeouts.Timeouts // of a socket with nothing but SO_KEEPALIVE
}

// openVigil asks for the namespace's defaults as well. Without an answer
// clients are given up after those of redirect's sockets, and servers never.
func (p *Proxy) openVigil(types *btf.Spec) {
	err := netns.Do(p.netns, func() (err error) {
		p.vigil.reader, err = timeouts.Open(types)
		return err
	})
	if err == nil {
		p.vigil.usual, err = usualTimeouts(p.netns)
	}
	if err != nil {
		p.opts.Log.WithError(err).Info("netproxy: timeouts that the application sets on its connections are not known")
		p.vigil.close()
	}
}

func usualTimeouts(ns int) (t timeouts.Timeouts, err error) {
	var idle, interval int
	for name, to := range map[string]*int{"tcp_keepalive_time": &idle, "tcp_keepalive_intvl": &interval, "tcp_keepalive_probes": &t.Count} {
		said, err := sysctl(ns, name)
		if err != nil {
			return t, err
		}
		if _, err := fmt.Sscan(said, to); err != nil {
			return t, fmt.Errorf("net.ipv4.%s %q: %w", name, said, err)
		}
	}
	t.Idle, t.Interval = time.Duration(idle)*time.Second, time.Duration(interval)*time.Second
	return t, nil
}

func (s *vigil) close() {
	if s.reader != nil {
		_ = s.reader.Close() // descriptors of programs close without an error
	}
	*s = vigil{}
}

// meet notes a connection that stands since now.
func (s *vigil) meet(c *conn) {
	if s.reader != nil {
		s.young = append(s.young, c)
	}
}

// checkVigil looks at some connections when it is time.
func (p *Proxy) checkVigil() {
	s := &p.vigil
	if s.reader == nil || p.phase != live {
		return
	}
	now := time.Now()
	if now.Sub(s.at) >= p.opts.vigilInterval {
		s.at, s.left = now, min(vigilBatch, len(p.slots))
		s.due, s.young = append(s.due, s.young...), nil
	}
	if !s.busy() || now.Sub(s.looked) < vigilPause {
		return
	}
	s.looked = now
	if err := p.inside.enter(); err != nil {
		p.opts.Log.WithError(err).Warn("netproxy: timeouts")
		return
	}
	defer p.inside.leave()
	for budget := vigilBatch; budget > 0 && s.reader != nil; {
		c := s.pop(p.slots)
		if c == nil {
			return
		}
		if !c.gone && c.clientFD >= 0 && !c.dialling && legOpen(c) {
			p.learnTimeouts(c)
			budget--
		}
	}
}

// busy reports whether connections wait to be looked at.
func (s *vigil) busy() bool { return len(s.due) > 0 || s.left > 0 }

// pop returns who is looked at next: the new ones, then those that are due in this
// interval; nil if nobody is.
func (s *vigil) pop(slots []*conn) *conn {
	if n := len(s.due); n > 0 {
		c := s.due[n-1]
		s.due = s.due[:n-1]
		return c
	}
	for ; s.left > 0; s.left-- {
		s.next = (s.next + 1) % len(slots)
		if c := slots[s.next]; c != nil {
			s.left--
			return c
		}
	}
	return nil
}

func (p *Proxy) learnTimeouts(c *conn) {
	t, err := p.vigil.reader.Read(c.local(), c.peer())
	switch {
	case errors.Is(err, timeouts.ErrNotFound):
		return // it is ending
	case err != nil:
		p.opts.Log.WithError(err).Warn("netproxy: timeouts that the application sets on its connections are not known from here on")
		p.vigil.close()
		return
	}
	if t.User == 0 {
		t.User = c.timeouts.User // CRIU does not restore it
	}
	if t == c.timeouts {
		return
	}
	if err := p.setTimeouts(c, t); err != nil {
		p.opts.Log.WithError(err).WithFields(connFields(c)).Warn("netproxy: set the application's timeouts")
	}
	c.timeouts = t
}

// setTimeouts makes our socket give its peer up as the application's would.
// Clients of an application that never would are probed all the same, so that
// those who have vanished do not take up all connections.
func (p *Proxy) setTimeouts(c *conn, t timeouts.Timeouts) error {
	on, idle, interval, count := 1, redirect.KeepAliveIdle, redirect.KeepAliveInterval, redirect.KeepAliveCount
	switch usual := &p.vigil.usual; {
	case t.KeepAlive:
		idle, interval, count = wholeSeconds(t.Idle, usual.Idle), wholeSeconds(t.Interval, usual.Interval), t.Count
		if count == 0 {
			count = usual.Count
		}
	case c.dir == dirOut:
		on = 0
	}
	for _, o := range [][3]int{
		{unix.SOL_TCP, unix.TCP_KEEPIDLE, within(idle, maxKeepSeconds)}, {unix.SOL_TCP, unix.TCP_KEEPINTVL, within(interval, maxKeepSeconds)},
		{unix.SOL_TCP, unix.TCP_KEEPCNT, within(count, maxKeepCount)},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, on}, {unix.SOL_TCP, unix.TCP_USER_TIMEOUT, int(t.User.Milliseconds())},
	} {
		if err := unix.SetsockoptInt(c.clientFD, o[0], o[1], o[2]); err != nil {
			return fmt.Errorf("setsockopt %d/%d to %d: %w", o[0], o[1], o[2], err)
		}
	}
	return nil
}

// A socket takes no more than these (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPCNT of the kernel's
// include/net/tcp.h); the namespace's defaults may be more.
const (
	maxKeepSeconds = 32767
	maxKeepCount   = 127
)

func within(n, most int) int { return max(1, min(n, most)) }

func wholeSeconds(d, usual time.Duration) int {
	if d == 0 {
		d = usual
	}
	return int(d / time.Second)
}
