package layer

import "slices"

// index finds the entries of a validated manifest by number.
type index struct {
	m       *manifest
	offsets []uint32 // of each record in the body
	parents []uint32
	ends    []uint32 // one past the last entry below each
}

func newIndex(m *manifest) *index {
	x := &index{
		m:       m,
		offsets: make([]uint32, m.count),
		parents: make([]uint32, m.count),
		ends:    make([]uint32, m.count),
	}
	var open []uint32 // the entries from the root to the current one
	at := 0
	for ord := range m.count {
		x.offsets[ord] = uint32(at)
		r := x.record(ord)
		at += len(r)
		for _, done := range open[min(r.depth(), len(open)):] {
			x.ends[done] = uint32(ord)
		}
		open = open[:r.depth()]
		if len(open) > 0 {
			x.parents[ord] = open[len(open)-1]
		}
		open = append(open, uint32(ord))
	}
	for _, done := range open {
		x.ends[done] = uint32(m.count)
	}
	return x
}

func (x *index) record(ord int) record {
	b := x.m.body[x.offsets[ord]:]
	n := record(b).u32(0)
	return record(b[:n:n])
}

// end returns the entry after ord and all that is below it. The entries in a
// directory begin at the one after it; each one's end is the next.
func (x *index) end(ord int) int { return int(x.ends[ord]) }

// ancestors returns the entries from below the root down to ord's parent.
func (x *index) ancestors(ord int) []int {
	var up []int
	for p := int(x.parents[ord]); p != 0; p = int(x.parents[p]) {
		up = append(up, p)
	}
	slices.Reverse(up)
	return up
}
