package netproxy

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/internal/kernel"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

// setup puts into the namespace what the loop needs. What was made before an
// error is undone by release.
func (p *Proxy) setup() error {
	var err error
	if p.ports, err = legPorts(p.netns); err != nil {
		return fmt.Errorf("netproxy: ports for legs: %w", err)
	}
	low, high := p.ports.Range()
	types, err := kernel.Types()
	if err != nil {
		types = nil // who needs them says why they can't be read
	}
	if p.src, p.srcReason, err = order.Open(order.Options{Kind: p.opts.Order, NetNS: p.netns, LowPort: low, HighPort: high, Outgoing: p.opts.Egress, Datagrams: p.opts.Datagrams, Types: types}); err != nil {
		return fmt.Errorf("netproxy: order of consumption: %w", err)
	}
	p.openVigil(types)
	if p.listen, err = redirect.Listen(p.netns, 0); err != nil {
		return fmt.Errorf("netproxy: %w", err)
	}
	rules := redirect.Options{
		NetNS: p.netns, Suffix: p.opts.Name, Listener: p.listen,
		ExcludePorts: p.opts.ExcludePorts, ExcludePrefixes: p.opts.ExcludeSources,
		Owns: p.owns(), Loopback: p.opts.Loopback && !p.opts.NoIngress, NoIncoming: p.opts.NoIngress, Log: p.opts.Log,
	}
	if p.opts.Egress {
		if err = p.openEgress(); err != nil {
			return fmt.Errorf("netproxy: intercept outgoing connections: %w", err)
		}
		rules.Outgoing = &redirect.Outgoing{
			Listener: p.egress.listen, Queue: p.egress.queue.Queue(),
			ExcludePorts: p.opts.passedServerPorts(), ExcludePrefixes: p.opts.ExcludeServers,
		}
	}
	if p.opts.Datagrams {
		if err = p.openDatagrams(); err != nil {
			return fmt.Errorf("netproxy: journal UDP: %w", err)
		}
		rules.Datagrams = &redirect.Datagrams{In: p.udp.in.Queue(), Out: p.udp.out.Queue()}
		if rules.Datagrams.EphemeralLow, rules.Datagrams.EphemeralHigh, err = ephemeralPorts(p.netns); err != nil {
			return fmt.Errorf("netproxy: journal UDP: %w", err)
		}
	}
	if p.rules, err = redirect.Install(rules); err != nil {
		return fmt.Errorf("netproxy: %w", err)
	}
	return nil
}

// owns asks the owner while there is one to ask: the processes of a container
// that is being restored are not all there yet.
func (p *Proxy) owns() func([]uint32) redirect.Ownership {
	if p.opts.Owns == nil {
		return nil
	}
	return func(inodes []uint32) redirect.Ownership {
		if p.down.Load() {
			return redirect.Unknown
		}
		o := p.opts.Owns(inodes)
		if p.down.Load() {
			return redirect.Unknown
		}
		return o
	}
}

// listeners are the descriptors to accept from.
func (p *Proxy) listeners() []int {
	var fds []int
	if p.listen == nil {
		return nil
	}
	for _, fd := range []int{p.listen.FD4, p.listen.FD6} {
		if fd >= 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}

// lastWords passes on what an application that has ended had still written. The
// sockets towards clients are then closed as the kernel would have closed the
// application's: with a FIN, or with a RST where input was not read.
func (p *Proxy) lastWords() {
	if p.phase == replaying || p.phase == crashed {
		// A recovery has failed: what clients have of a stream may be a part of
		// it, and must not end like a whole.
		for _, c := range p.slots {
			if c != nil && c.clientFD >= 0 && !c.closing[legSide] {
				closeReset(c.clientFD)
				c.clientFD = -1
			}
		}
		return
	}
	if p.stalled != nil {
		p.fault(p.stalled) // there is nothing to be replayed any more
	}
	p.lastReplies()
	p.phase, p.hush = crashed, hush{}
	// The kernel sends the rest of a dead application's output, and its FIN, as
	// we make room for it.
	for deadline := time.Now().Add(lastWordsLimit); ; {
		if err := p.drainLegs(); err != nil {
			p.opts.Log.WithError(err).Warn("netproxy: last output")
			break
		}
		if !p.anyLegOpen() || p.opts.Dying() != InitDying || time.Now().After(deadline) {
			break
		}
		if err := p.turn(1000); err != nil {
			break
		}
	}
	for _, c := range p.slots {
		if c == nil {
			continue
		}
		whole := c.eof[legSide]
		if c.legFD >= 0 {
			closeReset(c.legFD)
			c.legFD = -1
		}
		if !whole && c.clientFD >= 0 {
			closeReset(c.clientFD)
			c.clientFD = -1
		}
		p.leaveToKernel(c)
	}
}

// lastWordsLimit bounds the wait for the end of a dead application's output.
const lastWordsLimit = 2 * time.Second

func (p *Proxy) anyLegOpen() bool {
	for _, c := range p.slots {
		if c != nil && legOpen(c) {
			return true
		}
	}
	return false
}

// leaveToKernel gives a slow client's rest to its socket, which delivers it
// after the close as the application's would have. If it can't, the client gets
// a reset: an orderly end would make what it has look complete.
func (p *Proxy) leaveToKernel(c *conn) {
	if c.clientFD < 0 || c.out.empty() {
		return
	}
	// The kernel doubles the value; SO_SNDBUFFORCE goes beyond wmem_max.
	_ = unix.SetsockoptInt(c.clientFD, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, len(c.out.bytes())+1<<20)
	p.sendOutput(c, nil)
	if !c.out.empty() {
		closeReset(c.clientFD)
		c.clientFD = -1
	}
}

// release undoes setup and closes all connections. The loop does not run.
func (p *Proxy) release() {
	if p.rules != nil {
		if err := p.rules.Remove(); err != nil {
			p.opts.Log.WithError(err).Warn("netproxy: rules not removed")
		}
	}
	for _, c := range p.slots {
		if c != nil {
			p.closeSockets(c, false)
		}
	}
	p.closeWaiting()
	p.delays.close()
	if p.listen != nil {
		if err := p.listen.Close(); err != nil {
			p.opts.Log.WithError(err).Warn("netproxy: close listeners")
		}
	}
	if p.egress != nil {
		if err := p.egress.close(); err != nil {
			p.opts.Log.WithError(err).Warn("netproxy: close the queue of outgoing connections")
		}
	}
	if p.udp != nil {
		if err := p.udp.close(); err != nil {
			p.opts.Log.WithError(err).Warn("netproxy: close the queues of datagrams")
		}
	}
	p.vigil.close()
	if p.src != nil {
		if err := p.src.Close(); err != nil {
			p.opts.Log.WithError(err).Warn("netproxy: close order source")
		}
	}
	p.wakeMu.Lock()
	defer p.wakeMu.Unlock()
	for _, fd := range []*int{&p.epfd, &p.wakefd, &p.netns, &p.inside.home} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}
