package netproxy

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

// legPorts makes the allocator; the namespace's ephemeral ports belong to the
// application, but for those that are reserved.
func legPorts(ns int) (*tcprepair.Ports, error) {
	var o tcprepair.PortOptions
	var err error
	if o.EphemeralLow, o.EphemeralHigh, err = ephemeralPorts(ns); err != nil {
		return nil, err
	}
	if o.Reserved, err = reservedPorts(ns); err != nil {
		return nil, err
	}
	p, err := tcprepair.NewPorts(o)
	if errors.Is(err, tcprepair.ErrPortRange) {
		return nil, fmt.Errorf("net.ipv4.ip_local_port_range leaves none: %w; make it smaller, or reserve some, as with net.ipv4.ip_local_reserved_ports=%d-%d",
			err, tcprepair.DefaultLowPort, tcprepair.DefaultHighPort)
	}
	return p, err
}

// ephemeralPorts are those that the namespace gives to sockets which ask for
// none.
func ephemeralPorts(ns int) (low, high uint16, err error) {
	said, err := sysctl(ns, "ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(said, &low, &high)
	}
	return low, high, err
}

// reservedPorts are ranges, inclusive, of ports that it gives to nobody.
func reservedPorts(ns int) (ranges [][2]uint16, err error) {
	said, err := sysctl(ns, "ip_local_reserved_ports")
	if err != nil || said == "" {
		return nil, err
	}
	for one := range strings.SplitSeq(said, ",") {
		first, last, several := strings.Cut(one, "-")
		if !several {
			last = first
		}
		var r [2]uint16
		if _, err := fmt.Sscan(first+" "+last, &r[0], &r[1]); err != nil {
			return nil, fmt.Errorf("net.ipv4.ip_local_reserved_ports %q: %w", said, err)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}

// sysctl reads a setting of net.ipv4. The file shows the values of the reader's
// namespace.
func sysctl(ns int, name string) (value string, err error) {
	err = netns.Do(ns, func() error {
		b, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}
