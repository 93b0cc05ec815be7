package recovery

import (
	"net"
	"net/netip"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/netproxy"
)

// nodeConns says what connections from the node itself meet during a recovery.
func nodeConns(p config.Probes) netproxy.NodeConns {
	if p.Unlimited {
		return netproxy.NodeConns{}
	}
	return netproxy.NodeConns{Addrs: nodeAddresses, Hold: p.Limit}
}

// nodeAddresses are those of the host's interfaces, in whose network namespace
// the shim lives. Without them probes are like any other connection.
func nodeAddresses() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr())
		}
	}
	return out
}
