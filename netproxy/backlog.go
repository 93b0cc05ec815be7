package netproxy

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// backlog is how many connections a listener of ours holds that nobody has taken;
// of one that can't be asked, more than are taken at a time.
func backlog(listener int) int {
	var info unix.TCPInfo // of a listener, unacked is its queue (tcp(7) does not tell; net/ipv4/tcp.c does)
	size := uint32(unsafe.Offsetof(info.Unacked) + unsafe.Sizeof(info.Unacked))
	_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(listener), unix.SOL_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 || info.State != unix.BPF_TCP_LISTEN {
		return acceptBatch + 1
	}
	return int(info.Unacked)
}

// acceptNB takes a connection, whose socket does not block, and says who opened it.
// EAGAIN: there is none.
func acceptNB(listener int) (fd int, client netip.AddrPort, e syscall.Errno) {
	for {
		var name unix.RawSockaddrAny
		size := uint32(unsafe.Sizeof(name))
		n, _, e := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if e == 0 {
			return int(n), addrPort(&name), 0
		}
		if e != syscall.EINTR {
			return -1, netip.AddrPort{}, e
		}
	}
}

// localName is a socket's own address.
func localName(fd int) (netip.AddrPort, syscall.Errno) {
	var name unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(name))
	_, _, e := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&name)), uintptr(unsafe.Pointer(&size)))
	return addrPort(&name), e
}

// addrPort converts a socket address; IPv4-mapped addresses become IPv4.
func addrPort(name *unix.RawSockaddrAny) netip.AddrPort {
	switch name.Addr.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), hostOrder(a.Port))
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), hostOrder(a.Port))
	}
	return netip.AddrPort{}
}

// hostOrder reads a port as it stands in a packet.
func hostOrder(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}
