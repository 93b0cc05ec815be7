package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// elements are the set elements of the addresses of family i.
func elements(addrs []netip.AddrPort, i int) []nftables.SetElement {
	var out []nftables.SetElement
	for _, a := range addrs {
		if addr := a.Addr().Unmap(); addr.Is4() == (i == 0) {
			// A concatenated key pads each part to four bytes.
			key := append(addr.AsSlice(), byte(a.Port()>>8), byte(a.Port()), 0, 0)
			out = append(out, nftables.SetElement{Key: key})
		}
	}
	return out
}

func decodeKey(key []byte) (netip.AddrPort, bool) {
	if len(key) < 8 {
		return netip.AddrPort{}, false
	}
	addr, ok := netip.AddrFromSlice(key[:len(key)-4])
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(key[len(key)-4:])), ok
}

// intercepted reads both sets from the kernel.
func (t *table) intercepted() ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, s := range t.sets {
		elems, err := t.conn.GetSetElements(s)
		if err != nil {
			return nil, fmt.Errorf("read set %s of table %s: %w", s.Name, t.nft.Name, err)
		}
		for _, e := range elems {
			if a, ok := decodeKey(e.Key); ok {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out, nil
}

func (t *table) add(sets [2]*nftables.Set, addrs []netip.AddrPort) error {
	for i, s := range sets {
		if e := elements(addrs, i); len(e) > 0 {
			if err := t.conn.SetAddElements(s, e); err != nil {
				return err
			}
		}
	}
	return t.conn.Flush()
}

// forget deletes one element at a time, as one that is absent fails its batch.
func (t *table) forget(sets [2]*nftables.Set, addrs []netip.AddrPort) error {
	for _, a := range addrs {
		for i, s := range sets {
			e := elements([]netip.AddrPort{a}, i)
			if len(e) == 0 {
				continue
			}
			if err := t.conn.SetDeleteElements(s, e); err != nil {
				return err
			}
			if err := t.conn.Flush(); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
