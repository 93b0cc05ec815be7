package nfqueue

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	ip4MinLen   = 20
	ip6HeadLen  = 40
	tcpPortsLen = 4
	ip4Fragment = 0x3fff // more fragments, or an offset
)

// Datagram is a UDP datagram.
type Datagram struct {
	Source, Dest netip.AddrPort
	// Payload lies in the packet's. It is short if the packet was Cut.
	Payload []byte
}

const udpHeadLen = 8

// Datagram returns the datagram in a packet. ok is false for anything else, for
// fragments and for IPv6 packets with extension headers.
func (p *Packet) Datagram() (d Datagram, ok bool) {
	b := p.Payload
	var from, to netip.Addr
	be := binary.BigEndian
	switch {
	case len(b) >= ip4MinLen && b[0]>>4 == 4:
		n := int(b[0]&0xf) * 4
		if n < ip4MinLen || len(b) < n || b[9] != unix.IPPROTO_UDP || be.Uint16(b[6:])&ip4Fragment != 0 {
			return d, false
		}
		from, to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		b = b[n:]
	case len(b) >= ip6HeadLen && b[0]>>4 == 6 && b[6] == unix.IPPROTO_UDP:
		from, to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		b = b[ip6HeadLen:]
	}
	if !from.IsValid() || len(b) < udpHeadLen {
		return d, false
	}
	n := max(int(be.Uint16(b[4:])), udpHeadLen)
	d.Source, d.Dest = netip.AddrPortFrom(from, be.Uint16(b)), netip.AddrPortFrom(to, be.Uint16(b[2:]))
	d.Payload = b[udpHeadLen:min(n, len(b))]
	return d, true
}

// Ends returns the addresses of a TCP packet. ok is false for anything else, and
// for IPv6 packets with extension headers.
func (p *Packet) Ends() (source, destination netip.AddrPort, ok bool) {
	b := p.Payload
	if len(b) < ip4MinLen {
		return source, destination, false
	}
	var from, to netip.Addr
	var proto byte
	var ports []byte
	switch b[0] >> 4 {
	case 4:
		n := int(b[0]&0xf) * 4
		if n < ip4MinLen || len(b) < n+tcpPortsLen {
			return source, destination, false
		}
		from, to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		proto, ports = b[9], b[n:]
	case 6:
		if len(b) < ip6HeadLen+tcpPortsLen {
			return source, destination, false
		}
		from, to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		proto, ports = b[6], b[ip6HeadLen:]
	}
	if proto != unix.IPPROTO_TCP {
		return source, destination, false
	}
	be := binary.BigEndian
	return netip.AddrPortFrom(from, be.Uint16(ports)), netip.AddrPortFrom(to, be.Uint16(ports[2:])), true
}
