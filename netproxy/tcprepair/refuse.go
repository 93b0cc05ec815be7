package tcprepair

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// SYN is the first packet of a connection.
type SYN struct {
	Opener, Server netip.AddrPort
	Seq            uint32 // its sequence number
	Packet         []byte // from its network header on
}

// ICMP messages (RFC 792, RFC 4443).
const (
	icmp4Unreachable = 3
	icmp6Unreachable = 1

	icmpHeaderLen = 8
	// icmpQuote is how much of the packet is quoted: a network header and the
	// first bytes of the TCP header at least.
	icmpQuote = 128
)

// icmpCode is the code of ICMP's "unreachable" with which Linux ends a connect
// with that error (icmp_err_convert in net/ipv4/icmp.c, tab_unreach in
// net/ipv6/icmp.c).
func icmpCode(v6 bool, errno unix.Errno) (code byte, ok bool) {
	codes := map[unix.Errno]byte{
		unix.ENETUNREACH: 0, unix.EHOSTUNREACH: 1, unix.ENOPROTOOPT: 2, unix.EOPNOTSUPP: 5, unix.EHOSTDOWN: 7, unix.ENONET: 8,
	}
	if v6 {
		codes = map[unix.Errno]byte{unix.ENETUNREACH: 0, unix.EACCES: 1, unix.EHOSTUNREACH: 3}
	}
	code, ok = codes[errno]
	return code, ok
}

// Tellable reports whether Refuse can make a connect from that address fail with
// that error.
func Tellable(opener netip.Addr, errno unix.Errno) bool {
	_, ok := icmpCode(opener.Unmap().Is6(), errno)
	return ok || refused(errno)
}

func refused(errno unix.Errno) bool { return errno == unix.ECONNREFUSED || errno == unix.ECONNRESET }

// Refuse answers the SYN of a connection in the network's place: the opener's
// connect fails with errno, which must be Tellable. It is a RST, or ICMP's word
// that the server cannot be reached.
func Refuse(ns int, mark uint32, errno unix.Errno, s SYN) (err error) {
	if refused(errno) {
		err = sendRaw(ns, mark, segment{from: s.Server, to: s.Opener, ack: s.Seq + 1, flags: tcpRST | tcpACK})
	} else {
		err = sendUnreachable(ns, mark, errno, s)
	}
	if err != nil {
		return fmt.Errorf("tell %v that %v does not answer (%v): %w", s.Opener, s.Server, errno, err)
	}
	return nil
}

func sendUnreachable(ns int, mark uint32, errno unix.Errno, s SYN) error {
	quote := s.Packet[:min(len(s.Packet), icmpQuote)&^1]
	body := make([]byte, icmpHeaderLen, icmpHeaderLen+len(quote))
	v6 := s.Opener.Addr().Unmap().Is6()
	body[0] = icmp4Unreachable
	if v6 {
		body[0] = icmp6Unreachable
	}
	body[1], _ = icmpCode(v6, errno)
	body = append(body, quote...)
	src, dst := s.Server.Addr().Unmap(), s.Opener.Addr().Unmap()
	proto := byte(unix.IPPROTO_ICMP)
	if v6 {
		proto = unix.IPPROTO_ICMPV6
		binary.BigEndian.PutUint16(body[2:], checksum(unix.IPPROTO_ICMPV6, src.AsSlice(), dst.AsSlice(), body))
	} else {
		// Without a pseudo header (RFC 792).
		binary.BigEndian.PutUint16(body[2:], ^sum(0, body))
	}
	return sendIP(ns, mark, s.Opener, ipPacket(src, dst, proto, body))
}
