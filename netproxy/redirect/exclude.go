package redirect

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// prefixSet is a set of address ranges of family i.
func (t *table) prefixSet(id int, name string, i int) *nftables.Set {
	addr := nftables.TypeIPAddr
	if i == 1 {
		addr, name = nftables.TypeIP6Addr, name+"6"
	}
	return &nftables.Set{ID: uint32(id + i), Table: t.nft, Name: name, KeyType: addr, Interval: true}
}

// addPrefixSets makes the sets of peers that are left alone.
func (t *table) addPrefixSets(o *Options) error {
	for i := range t.clients {
		if err := t.conn.AddSet(t.clients[i], ranges(o.ExcludePrefixes, i)); err != nil {
			return err
		}
		if o.Outgoing == nil {
			continue
		}
		if err := t.conn.AddSet(t.servers[i], ranges(o.Outgoing.ExcludePrefixes, i)); err != nil {
			return err
		}
	}
	return nil
}

// ranges are the elements for the prefixes of family i: each begins with an
// address and ends before another. IPv6 link-local is always among them.
func ranges(prefixes []netip.Prefix, i int) []nftables.SetElement {
	var own []netip.Prefix
	if i == 1 {
		own = append(own, netip.MustParsePrefix("fe80::/10"))
	}
	for _, p := range prefixes {
		if p.Addr().Is4() == (i == 0) {
			own = append(own, p.Masked())
		}
	}
	slices.SortFunc(own, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []nftables.SetElement
	var end netip.Addr // of the range before, exclusive
	for k, p := range own {
		if k > 0 && (!end.IsValid() || p.Addr().Less(end)) {
			continue // lies in the one before
		}
		if k > 0 && p.Addr() == end {
			out = out[:len(out)-1] // one range goes on where another ends
		} else {
			out = append(out, nftables.SetElement{Key: p.Addr().AsSlice()})
		}
		if end = after(p); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// after is the first address behind a prefix; the zero Addr if there is none.
func after(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last.Next()
}

// peerIn matches packets whose address at offset is in the set, or is not.
func (f *family) peerIn(offset uint32, s *nftables.Set, in bool) []expr.Any {
	return append(f.loadAddr(offset), inSet(s, !in)...)
}
