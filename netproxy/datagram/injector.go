package datagram

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// ErrTooLarge is returned by Send for what no datagram can hold.
var ErrTooLarge = errors.New("datagram too large")

const (
	ip4HeaderLen = 20
	ip6HeaderLen = 40
	udpHeaderLen = 8
	maxUDP       = 0xffff
	hops         = 64
)

// Injector sends datagrams. It is not safe for concurrent use.
type Injector struct {
	fd4, fd6 int // fd6: -1 without IPv6
	packet   []byte
}

// Open makes an Injector in network namespace ns, or netns.Current, whose packets
// carry a mark. The caller closes it.
func Open(ns int, mark uint32) (*Injector, error) {
	in := &Injector{fd4: -1, fd6: -1}
	err := netns.Do(ns, func() (err error) {
		if in.fd4, err = rawSocket(unix.AF_INET, mark); err != nil {
			return err
		}
		if in.fd6, err = rawSocket(unix.AF_INET6, mark); errors.Is(err, unix.EAFNOSUPPORT) {
			return nil
		}
		return err
	})
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("raw socket for datagrams: %w", err)
	}
	return in, nil
}

func rawSocket(family int, mark uint32) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Send delivers a datagram from source to dest, an address of the namespace.
func (in *Injector) Send(source, dest netip.AddrPort, payload []byte) error {
	n := udpHeaderLen + len(payload)
	if n > maxUDP || dest.Addr().Is4() && ip4HeaderLen+n > maxUDP {
		return fmt.Errorf("%w: %d bytes to %v", ErrTooLarge, len(payload), dest)
	}
	fd, to := in.fd4, unix.Sockaddr(nil)
	if dest.Addr().Is4() {
		to = &unix.SockaddrInet4{Addr: dest.Addr().As4()}
	} else {
		// Raw IPv6 sockets take a protocol for a port.
		fd, to = in.fd6, &unix.SockaddrInet6{Addr: dest.Addr().As16()}
	}
	in.packet = appendUDP(appendIP(in.packet[:0], source.Addr(), dest.Addr(), n), source, dest, payload)
	if err := unix.Sendto(fd, in.packet, 0, to); err != nil {
		return fmt.Errorf("datagram from %v to %v: %w", source, dest, err)
	}
	return nil
}

// Close releases the sockets.
func (in *Injector) Close() error {
	var errs []error
	for _, fd := range []*int{&in.fd4, &in.fd6} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// appendIP appends an IP header before n bytes. Length and checksum of an IPv4
// header are filled in by the kernel.
func appendIP(b []byte, src, dst netip.Addr, n int) []byte {
	if dst.Is4() {
		head := [ip4HeaderLen]byte{0: 0x45, 8: hops, 9: unix.IPPROTO_UDP}
		copy(head[12:], src.AsSlice())
		copy(head[16:], dst.AsSlice())
		return append(b, head[:]...)
	}
	head := [ip6HeaderLen]byte{0: 0x60, 6: unix.IPPROTO_UDP, 7: hops}
	binary.BigEndian.PutUint16(head[4:], uint16(n))
	copy(head[8:], src.AsSlice())
	copy(head[24:], dst.AsSlice())
	return append(b, head[:]...)
}

// appendUDP appends the datagram itself.
func appendUDP(b []byte, source, dest netip.AddrPort, payload []byte) []byte {
	at, n := len(b), udpHeaderLen+len(payload)
	be := binary.BigEndian
	b = be.AppendUint16(b, source.Port())
	b = be.AppendUint16(b, dest.Port())
	b = be.AppendUint16(b, uint16(n))
	b = be.AppendUint16(b, 0)
	b = append(b, payload...)
	sum := add(unix.IPPROTO_UDP+uint64(n), source.Addr().AsSlice())
	sum = add(add(sum, dest.Addr().AsSlice()), b[at:])
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum = 0xffff ^ sum; sum == 0 {
		sum = 0xffff // 0 means that there is none (RFC 768)
	}
	be.PutUint16(b[at+6:], uint16(sum))
	return b
}

// add adds 16-bit words, the last of which may be half.
func add(sum uint64, b []byte) uint64 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}
