package tcprepair

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Refuse answers the SYN of a connection in its server's place with a RST: the
// opener's connect fails with ECONNREFUSED. seq is the SYN's sequence number.
func Refuse(ns int, mark uint32, opener, server netip.AddrPort, seq uint32) error {
	err := sendRaw(ns, mark, segment{from: server, to: opener, ack: seq + 1, flags: tcpRST | tcpACK})
	if err != nil {
		return fmt.Errorf("refuse %v-%v: %w", opener, server, err)
	}
	return nil
}

// ICMP messages (RFC 792, RFC 4443) that end a connect with EHOSTUNREACH.
const (
	icmp4Unreachable = 3
	icmp4Host        = 1
	icmp6Unreachable = 1
	icmp6Address     = 3

	icmpHeaderLen = 8
	// icmpQuote is how much of the packet is quoted: a network header and the
	// first bytes of the TCP header at least.
	icmpQuote = 128
)

// Unreachable answers the SYN of a connection, packet, with ICMP's word that the
// server cannot be reached: the opener's connect fails with EHOSTUNREACH.
func Unreachable(ns int, mark uint32, opener, server netip.AddrPort, packet []byte) error {
	quote := packet[:min(len(packet), icmpQuote)&^1]
	body := make([]byte, icmpHeaderLen, icmpHeaderLen+len(quote))
	body[0], body[1] = icmp4Unreachable, icmp4Host
	v6 := opener.Addr().Unmap().Is6()
	if v6 {
		body[0], body[1] = icmp6Unreachable, icmp6Address
	}
	body = append(body, quote...)
	src, dst := server.Addr().Unmap(), opener.Addr().Unmap()
	if v6 {
		binary.BigEndian.PutUint16(body[2:], checksum(unix.IPPROTO_ICMPV6, src.AsSlice(), dst.AsSlice(), body))
	} else {
		// Without a pseudo header (RFC 792).
		binary.BigEndian.PutUint16(body[2:], ^sum(0, body))
	}
	proto := byte(unix.IPPROTO_ICMP)
	if v6 {
		proto = unix.IPPROTO_ICMPV6
	}
	if err := sendIP(ns, mark, opener, ipPacket(src, dst, proto, body)); err != nil {
		return fmt.Errorf("tell %v that %v is unreachable: %w", opener, server, err)
	}
	return nil
}
