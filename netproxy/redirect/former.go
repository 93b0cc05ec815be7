package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// Former says which addresses a namespace had where the application of the
// images ran, and has no longer.
type Former struct {
	// Addrs are those that its sockets still have.
	Addrs []netip.Addr
	// Bound are the sockets with an address of Addrs that take what anybody sends.
	Bound []netip.AddrPort
	// Current are the addresses of the namespace at which others reach it.
	Current []netip.Addr
}

// Kept are former addresses that a namespace has on lo.
type Kept struct {
	table *table
	h     *netlink.Handle
	addrs []netip.Addr
}

// keptName begins the names of the tables, which are no redirections.
const keptName = "crsckept_"

// maxFormer bounds the rules.
const maxFormer = 1024

// Keep gives the namespace its former addresses, on lo: sockets that have them
// can be made again. What is sent to a port of Bound at a current address goes to the
// former one, and so does what is sent to any port at which nobody has listened
// there: the application may bind more later (of several former addresses of Bound,
// to the first). What leaves from a former address leaves from the current one of
// its interface. The rest of the network does not learn of them: nobody else's
// packets to such an address come here.
//
// The suffix is that of Options. Close takes it all away, and so does the end of
// this process, but for the addresses.
func Keep(ns int, suffix string, f Former) (_ *Kept, err error) {
	if len(f.Bound)*len(f.Current) > maxFormer {
		return nil, fmt.Errorf("%w: %d sockets are bound to former addresses; more than %d rules", ErrOptions, len(f.Bound), maxFormer)
	}
	k := &Kept{table: newTable(suffix), addrs: f.Addrs}
	k.table.nft.Name = keptName + suffix
	err = netns.Do(ns, func() error {
		if err := k.table.dial(); err != nil {
			return err
		}
		if k.h, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return errors.Join(err, k.table.conn.CloseLasting())
		}
		return hideFromARP()
	})
	if k.h == nil {
		return nil, fmt.Errorf("keep former addresses: %w", err)
	}
	if err == nil {
		err = k.install(&f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep former addresses: %w", err), k.Close())
	}
	return k, nil
}

// hideFromARP makes the namespace answer for addresses of the asked interface
// only; the kernel's default is to answer for those on lo too, which may be
// another pod's by now.
func hideFromARP() error {
	for name, value := range map[string]string{"arp_ignore": "1", "arp_announce": "2"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/"+name, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (k *Kept) install(f *Former) error {
	if err := k.table.create(); err != nil {
		return err
	}
	add := k.table.chain(chainIn, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest)
	k.addBound(add, f)
	if err := k.addLater(add, f); err != nil {
		return err
	}
	k.addOutput(f)
	if err := k.table.conn.Flush(); err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: address translation of nftables: %w", ErrKernel, err)
		}
		return err
	}
	lo, err := k.h.LinkByIndex(loopbackIndex)
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	for _, a := range k.addrs {
		if err := k.h.AddrReplace(lo, onLoopback(a)); err != nil {
			return fmt.Errorf("add %s to lo: %w", a, err)
		}
	}
	return nil
}

// addBound comes before every redirection, which then sees the former address.
func (k *Kept) addBound(add func(...[]expr.Any), f *Former) {
	fams := families()
	for _, b := range f.Bound {
		for _, c := range f.Current {
			if b.Addr().Is4() != c.Is4() {
				continue
			}
			fam := &fams[familyOf(c)]
			for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
				add(meta(expr.MetaKeyIIF, expr.CmpOpNeq, host32(loopbackIndex)), fam.only(), fam.is(fam.daddr, c),
					meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{proto}), loadPort(tcpDest),
					[]expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: keyReg, Data: be16(b.Port())}}, fam.to(b.Addr()))
			}
		}
	}
}

// addLater is for what is bound later. Where nobody listens at a current address,
// the former one is tried, which refuses like the current one if there is nobody
// either. A port at which somebody was once seen to listen at a current address
// stays that one's: it may only be gone until its recovery.
func (k *Kept) addLater(add func(...[]expr.Any), f *Former) error {
	for i, fam := range families() {
		at := slices.IndexFunc(f.Bound, func(b netip.AddrPort) bool { return familyOf(b.Addr()) == i })
		if at < 0 {
			continue
		}
		taken := &nftables.Set{ID: uint32(i + 1), Table: k.table.nft, Name: "taken_" + fam.set, KeyType: fam.keyType, Dynamic: true, Size: maxIntercepted}
		if err := k.table.conn.AddSet(taken, nil); err != nil {
			return err
		}
		for _, c := range f.Current {
			if familyOf(c) != i {
				continue
			}
			begin := slices.Concat(meta(expr.MetaKeyIIF, expr.CmpOpNeq, host32(loopbackIndex)), fam.only(), fam.is(fam.daddr, c))
			for _, first := range [][]expr.Any{slices.Concat(begin, isTCP(), bareSYN()), slices.Concat(begin, isUDP())} {
				add(first, appListens(), fam.key(fam.daddr, tcpDest), addToSet(taken))
				add(first, appListens(), accept())
				add(first, fam.key(fam.daddr, tcpDest), inSet(taken, true), fam.to(f.Bound[at].Addr()))
			}
		}
	}
	return nil
}

// to translates the destination of a connection.
func (f *family) to(a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: scratchReg, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: scratchReg},
	}
}

func (k *Kept) addOutput(f *Former) {
	add := k.table.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	fams := families()
	for _, a := range f.Addrs {
		fam := &fams[familyOf(a)]
		add(meta(expr.MetaKeyOIF, expr.CmpOpNeq, host32(loopbackIndex)), fam.only(), fam.is(fam.saddr, a), []expr.Any{&expr.Masq{}})
	}
}

// is matches the address at offset.
func (f *family) is(offset uint32, a netip.Addr) []expr.Any {
	return f.inPrefix(offset, netip.PrefixFrom(a, a.BitLen()))
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func onLoopback(a netip.Addr) *netlink.Addr {
	addr := &netlink.Addr{
		IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
		Scope: unix.RT_SCOPE_HOST,
	}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

// Close takes the rules away, and the addresses unless another container of the
// namespace has kept some too.
func (k *Kept) Close() error {
	defer k.h.Close()
	err := k.table.remove()
	others, lerr := k.table.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	err = errors.Join(err, lerr, k.table.conn.CloseLasting())
	for _, o := range others {
		if strings.HasPrefix(o.Name, keptName) && o.Name != k.table.nft.Name {
			return err
		}
	}
	lo, lerr := k.h.LinkByIndex(loopbackIndex)
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	for _, a := range k.addrs {
		if derr := k.h.AddrDel(lo, onLoopback(a)); derr != nil && !errors.Is(derr, unix.EADDRNOTAVAIL) && !errors.Is(derr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("take %s off lo: %w", a, derr))
		}
	}
	return err
}

// Addresses lists those at which others reach the namespace.
func Addresses(ns int) ([]netip.Addr, error) {
	var out []netip.Addr
	err := netns.Do(ns, func() error {
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Flags&net.FlagLoopback != 0 {
				continue
			}
			list, err := l.Addrs()
			if err != nil {
				return err
			}
			for _, a := range list {
				if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
					out = append(out, p.Addr().Unmap())
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	return out, nil
}
