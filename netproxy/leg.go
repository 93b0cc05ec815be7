package netproxy

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

// legTries bounds the ports that are tried for a leg; the later half comes from
// the range that all peers share.
const legTries = 6

// maxMet bounds how many ports that clients have are passed over before the
// common range, which has more ports than there are connections.
const maxMet = 64

// dialLeg opens the leg of c with a port of the allocator's. A port may be
// taken though the allocator does not know: the leg of a client that is gone lives
// on after a recovery.
func (p *Proxy) dialLeg(c *conn) error {
	peer := legPeer(c)
	for try, met := 1, 0; ; {
		get := func() (uint16, error) { return p.ports.Get(peer) }
		if try > legTries/2 || met > maxMet {
			get = p.ports.GetCommon
		}
		port, err := get()
		if err != nil {
			return err
		}
		c.legPort, c.borrowed = port, false
		if p.clientPorts[c.legAddr()] > 0 {
			// A client has this very port: its socket would get the leg's packets.
			p.ports.Put(peer, port)
			met++
			continue
		}
		if c.legFD, err = tcprepair.Dial(netns.Current, p.legSpec(c)); err == nil {
			return nil
		}
		taken := errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EADDRINUSE)
		if taken && wakeRested(sockdiag.Tuple{Local: c.legAddr(), Remote: c.dest}) {
			if c.legFD, err = tcprepair.Dial(netns.Current, p.legSpec(c)); err == nil {
				return nil
			}
		}
		p.ports.Put(peer, port)
		if !taken || try == legTries {
			return err
		}
		try++
	}
}

// wakeRested removes the TIME_WAIT of an earlier leg, and reports whether it did.
// Nothing of that connection can be under way on loopback. With timestamps the
// kernel takes such a four-tuple again by itself; without, there would be no port
// left when more connections than there are ports ended within a minute.
func wakeRested(t sockdiag.Tuple) bool {
	diag, err := sockdiag.Open(netns.Current)
	if err != nil {
		return false
	}
	defer diag.Close()
	var s sockdiag.Socket
	return diag.Lookup(t, &s) == nil && s.State == sockdiag.TimeWait && diag.Destroy(&s) == nil
}

// legPeer is the number of those whose legs may not share a port: the order
// source can't tell them apart, nor could the kernel.
func legPeer(c *conn) uint64 {
	return appKey(c.dest.Port(), 0, order.PeerOf(c.client.Addr()))
}

func (c *conn) legAddr() netip.AddrPort { return netip.AddrPortFrom(c.client.Addr(), c.legPort) }

// legSpec is the leg's four-tuple: the client's address with a port of ours.
func (p *Proxy) legSpec(c *conn) tcprepair.Spec {
	return tcprepair.Spec{Client: c.legAddr(), App: c.dest, Mark: redirect.MarkSteer, Priority: redirect.LegPriority}
}

// noteClient remembers a client whose own port a leg might have.
func (p *Proxy) noteClient(c *conn) {
	if p.ports.Has(c.client.Port()) {
		c.noted = true
		p.clientPorts[c.client]++
	}
}

func (p *Proxy) forgetClient(c *conn) {
	if !c.noted {
		return
	}
	c.noted = false
	if p.clientPorts[c.client]--; p.clientPorts[c.client] == 0 {
		delete(p.clientPorts, c.client)
	}
}
