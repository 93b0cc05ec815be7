package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// makeNetwork gives the node an address and a default route that leads nowhere:
// kube-proxy and kubelet look for one.
func (c *Cluster) makeNetwork(context.Context) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	eth := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(eth), netlink.LinkSetUp(eth)); err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(NodeIP), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(eth, addr); err != nil {
		return fmt.Errorf("address %s: %w", NodeIP, err)
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: nil, Gw: net.ParseIP("172.31.99.254")})
}
