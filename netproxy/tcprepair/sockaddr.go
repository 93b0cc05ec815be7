package tcprepair

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// network is an address family with the socket options that differ by it.
type network struct {
	family, level, transparent int
}

// networkOf returns the family of the packets between two addresses. A v4-mapped
// application socket exchanges IPv4 packets, so its leg is an IPv4 socket.
func networkOf(a netip.Addr) network {
	if a.Unmap().Is4() {
		return network{unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT}
	}
	return network{unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if addr := a.Addr().Unmap(); addr.Is4() {
		return &unix.SockaddrInet4{Addr: addr.As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
