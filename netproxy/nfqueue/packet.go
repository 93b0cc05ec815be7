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
	from, to, header := p.tcp()
	if header == nil {
		return source, destination, false
	}
	be := binary.BigEndian
	return netip.AddrPortFrom(from, be.Uint16(header)), netip.AddrPortFrom(to, be.Uint16(header[2:])), true
}

// Answers reports whether the packet is the answer to a SYN: one with ACK.
func (p *Packet) Answers() bool {
	_, _, header := p.tcp()
	return len(header) > tcpFlags && header[tcpFlags]&tcpAnswer == tcpAnswer
}

const (
	tcpFlags  = 13
	tcpAnswer = 0x12 // SYN and ACK
)

// tcp returns the addresses of a TCP packet and what there is of it from its TCP
// header on, at least the ports; nil if there is none.
func (p *Packet) tcp() (from, to netip.Addr, header []byte) {
	b := p.Payload
	if len(b) < ip4MinLen {
		return from, to, nil
	}
	var proto byte
	switch b[0] >> 4 {
	case 4:
		n := int(b[0]&0xf) * 4
		if n < ip4MinLen || len(b) < n+tcpPortsLen {
			return from, to, nil
		}
		from, to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		proto, header = b[9], b[n:]
	case 6:
		if len(b) < ip6HeadLen+tcpPortsLen {
			return from, to, nil
		}
		from, to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		proto, header = b[6], b[ip6HeadLen:]
	}
	if proto != unix.IPPROTO_TCP {
		return from, to, nil
	}
	return from, to, header
}
