package redirect

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routes are the policy rules and local routes that bring marked packets back.
type routes struct {
	h *netlink.Handle
	// families that the namespace supports, AF_INET and perhaps AF_INET6.
	families []int
}

func (r *routes) rule(family int) *netlink.Rule {
	mask := MarkMask
	rule := netlink.NewRule()
	rule.Family = family
	rule.Priority = rulePriority
	rule.Mark = MarkSteer
	rule.Mask = &mask
	rule.Table = routeTable
	return rule
}

func (r *routes) route(family int) *netlink.Route {
	dst := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if family == unix.AF_INET6 {
		dst = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &netlink.Route{
		Family: family, LinkIndex: loopbackIndex, Dst: dst,
		Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: routeTable,
	}
}

// install raises lo and adds what is missing.
func (r *routes) install() error {
	lo, err := r.h.LinkByIndex(loopbackIndex)
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := r.h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("raise lo: %w", err)
	}
	for _, f := range r.families {
		if err := r.h.RouteReplace(r.route(f)); err != nil {
			return fmt.Errorf("add local route: %w", err)
		}
		if err := r.h.RuleAdd(r.rule(f)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add routing rule: %w", err)
		}
	}
	return nil
}

// complete tells whether rules and routes stand and lo is up.
func (r *routes) complete() (bool, error) {
	lo, err := r.h.LinkByIndex(loopbackIndex)
	if err != nil {
		return false, fmt.Errorf("find lo: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		return false, nil
	}
	for _, f := range r.families {
		rules, err := r.h.RuleListFiltered(f, &netlink.Rule{Table: routeTable}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return false, fmt.Errorf("list routing rules: %w", err)
		}
		routes, err := r.h.RouteListFiltered(f, &netlink.Route{Table: routeTable}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return false, fmt.Errorf("list routes: %w", err)
		}
		if len(rules) == 0 || len(routes) == 0 {
			return false, nil
		}
	}
	return true, nil
}

func (r *routes) remove() error {
	var errs []error
	for _, f := range r.families {
		if err := r.h.RuleDel(r.rule(f)); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete routing rule: %w", err))
		}
		if err := r.h.RouteDel(r.route(f)); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete local route: %w", err))
		}
	}
	return errors.Join(errs...)
}
