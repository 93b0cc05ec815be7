package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// The annotations that decide which connections are the proxy's.
const (
	KeyExcludePorts      = Prefix + "exclude-ports"
	KeyExcludeCIDRs      = Prefix + "exclude-cidrs"
	KeyProbes            = Prefix + "probes"
	KeyInterceptLoopback = Prefix + "intercept-loopback"
	KeyProxyMemory       = Prefix + "proxy-memory"
	KeyMaxConnections    = Prefix + "max-connections"
)

// Exclude is what the proxy leaves alone in one direction.
type Exclude struct {
	// Ports of whoever accepts the connections, sorted and not overlapping.
	Ports []PortRange
	// Prefixes of the peers' addresses, sorted, none within another.
	Prefixes []netip.Prefix
}

// HasPort reports whether connections to port are left alone.
func (e *Exclude) HasPort(port uint16) bool {
	for _, r := range e.Ports {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}

func (e *Exclude) clone() Exclude { return Exclude{slices.Clone(e.Ports), slices.Clone(e.Prefixes)} }

// Probes says how long new connections from the node's own addresses wait for
// the end of a recovery, before they meet the application as it is.
type Probes struct {
	// Unlimited makes them wait like all others.
	Unlimited bool
	// Limit of 0 lets them pass at once.
	Limit time.Duration
}

func networkKeys() []key {
	return []key{interceptKey(), udpKey(), {
		name: KeyExcludePorts, form: `a comma-separated list of ports and ranges such as "9090,8000-8080", each perhaps with "in:" or "out:" before it`, def: "",
		doc: "TCP ports that are not proxied: their connections break in a crash. `in:` are ports of the container, `out:` ports of the servers that it connects to; without either, both. Connections to name servers (port 53) never are: a question has a random number, and may be asked again.",
		parse: func(c *Config, v string) error {
			in, out, err := directions(v)
			if err != nil {
				return err
			}
			if c.ExcludeIn.Ports, err = parsePorts(in); err != nil {
				return err
			}
			c.ExcludeOut.Ports, err = parsePorts(out)
			return err
		},
	}, {
		name: KeyExcludeCIDRs, form: `a comma-separated list of address ranges such as "10.0.0.0/8,fd00::/8", each perhaps with "in:" or "out:" before it`, def: "",
		doc: "Peers whose TCP connections are not proxied. `in:` are clients of the container, `out:` servers that it connects to; without either, both.",
		parse: func(c *Config, v string) error {
			in, out, err := directions(v)
			if err != nil {
				return err
			}
			if c.ExcludeIn.Prefixes, err = parsePrefixes(in); err != nil {
				return err
			}
			c.ExcludeOut.Prefixes, err = parsePrefixes(out)
			return err
		},
	}, {
		name: KeyProbes, form: `"hold", "pass" or a duration such as "1s"`, def: "1s",
		doc: "What new connections from the node's own addresses, such as the kubelet's probes, meet while the container is being recovered. `pass`: the application as it is, which refuses them. A duration: they wait for the recovery, but not longer than that, so that a probe gets an answer before its own time is over. `hold`: they wait like those of anybody else; needed where clients come through the node's address translation, and so look like the node.",
		parse: func(c *Config, v string) (err error) {
			switch v {
			case "hold":
				c.Probes = Probes{Unlimited: true}
			case "pass":
				c.Probes = Probes{}
			default:
				c.Probes = Probes{}
				c.Probes.Limit, err = parseDuration(v, time.Millisecond)
			}
			return err
		},
	}, {
		name: KeyInterceptLoopback, form: `"true" or "false"`, def: "false",
		doc: "Proxy also what other containers of the pod send to this one over the loopback interface. What the container sends to itself never is.",
		parse: func(c *Config, v string) (err error) {
			c.InterceptLoopback, err = parseBool(v)
			return err
		},
	}}
}

func proxyKeys() []key {
	return []key{{
		name: KeyProxyMemory, form: `a number of bytes of at least 1Mi with an optional suffix Ki, Mi, Gi or Ti such as "64Mi"`, def: "64Mi",
		doc: "Bytes that the proxy keeps for clients and applications that are slow to take them. Beyond it each connection gets 4 KiB at a time, so that the sender has to wait.",
		parse: func(c *Config, v string) (err error) {
			c.ProxyMemory, err = sizeAtLeast(v, minProxyMemory)
			return err
		},
		rank: func(c *Config) float64 { return float64(c.ProxyMemory) },
	}, {
		name: KeyMaxConnections, form: `a whole number from 1 to 20000 such as "10000"`, def: "10000",
		doc: "Connections that the proxy serves at a time. Further ones wait to be accepted.",
		parse: func(c *Config, v string) error {
			n, err := parseDecimal(v)
			if err == nil && (n < 1 || n > maxConnections) {
				err = errForm
			}
			c.MaxConnections = int(n)
			return err
		},
		rank: func(c *Config) float64 { return float64(c.MaxConnections) },
	}}
}

// minProxyMemory is the least that the proxy's buffers may be limited to.
const minProxyMemory = 1 << 20

// maxConnections is what there are certainly ports for.
const maxConnections = 20000

// directions splits a list by the direction that its items name.
func directions(s string) (in, out string, err error) {
	var ins, outs []string
	for _, item := range splitList(s) {
		rest, isIn := strings.CutPrefix(item, "in:")
		if !isIn {
			rest, _ = strings.CutPrefix(item, "out:")
		}
		isOut := !isIn && rest != item
		if rest == "" {
			return "", "", fmt.Errorf("%q %w", shorten(item), errForm)
		}
		if !isOut {
			ins = append(ins, rest)
		}
		if !isIn {
			outs = append(outs, rest)
		}
	}
	return strings.Join(ins, ","), strings.Join(outs, ","), nil
}

// parsePrefixes reads address ranges, and drops those that lie in others. An
// address alone is a range of one.
func parsePrefixes(s string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, item := range splitList(s) {
		p, err := netip.ParsePrefix(item)
		if a, e := netip.ParseAddr(item); err != nil && e == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q %w", shorten(item), errForm)
		}
		all = append(all, p.Masked())
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, p := range all {
		if n := len(out); n == 0 || !out[n-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out, nil
}
