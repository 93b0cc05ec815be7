package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Prober is one client that sends a request as soon as the last was answered.
// It shows to some tens of microseconds when a server did not answer. It works
// with blocking system calls on a thread of its own, so that no scheduler but
// the kernel's stands between it and the server.
type Prober struct {
	stop  atomic.Bool
	done  chan error
	waits []wait // valid when done
}

// wait is one request, from sending it to its reply.
type wait struct{ sent, answered time.Time }

// StartProber connects a prober to a Redis. Stop must be called.
func (r *Rig) StartProber(addr netip.AddrPort) (*Prober, error) {
	p := &Prober{done: make(chan error, 1)}
	connected := make(chan error, 1)
	go func() {
		p.done <- r.inClient(func() error {
			fd, err := connect(addr)
			connected <- err
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return p.probe(fd)
		})
		close(connected)
	}()
	if err, ok := <-connected; err != nil {
		return nil, err
	} else if !ok {
		return nil, <-p.done
	}
	return p, nil
}

// Stop ends the prober and returns its first error, if there was one.
func (p *Prober) Stop() error {
	p.stop.Store(true)
	err := <-p.done
	p.done <- err // for further calls
	return err
}

func connect(addr netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(replyTimeout.Nanoseconds())
	err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("prober: connect %s: %w", addr, err)
	}
	return fd, nil
}

func (p *Prober) probe(fd int) error {
	request, reply, buf := "PING\r\n", "+PONG\r\n", make([]byte, 64)
	for !p.stop.Load() {
		w := wait{sent: time.Now()}
		if _, err := unix.Write(fd, []byte(request)); err != nil {
			return fmt.Errorf("prober: send: %w", err)
		}
		for n := 0; n < len(reply); {
			m, err := unix.Read(fd, buf[n:])
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || m == 0 {
				return fmt.Errorf("prober: no reply: %w", err)
			}
			if n += m; string(buf[:n]) != reply[:min(n, len(reply))] {
				return fmt.Errorf("prober: %w: %q", ErrReply, buf[:n])
			}
		}
		w.answered = time.Now()
		p.waits = append(p.waits, w)
	}
	return nil
}

// Median is the median wait, in milliseconds. Call it after Stop.
func (p *Prober) Median() float64 {
	all := make(Sample, 0, len(p.waits))
	for _, w := range p.waits {
		all = append(all, Millis(w.answered.Sub(w.sent)))
	}
	return all.Median()
}

// Longest is the longest wait, in milliseconds, of those that touch a span of
// time; 0 if there is none. Call it after Stop.
func (p *Prober) Longest(from, to time.Time) float64 {
	var most time.Duration
	for _, w := range p.waits {
		if w.answered.After(from) && w.sent.Before(to) {
			most = max(most, w.answered.Sub(w.sent))
		}
	}
	return Millis(most)
}

// Waits are the waits, in milliseconds, of the requests that were sent in a span
// of time. Call it after Stop.
func (p *Prober) Waits(from, to time.Time) (s Sample) {
	for _, w := range p.waits {
		if !w.sent.Before(from) && w.sent.Before(to) {
			s = append(s, Millis(w.answered.Sub(w.sent)))
		}
	}
	return s
}
