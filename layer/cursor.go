package layer

import "bytes"

// cursor walks the entries of a manifest alongside a directory walk in the same
// order. It decodes nothing that is not looked at. The manifest has been
// validated.
type cursor struct {
	rest []byte
	cur  record // nil at the end
	ord  int    // of cur
}

func newCursor(m *manifest) *cursor {
	c := &cursor{rest: m.body, ord: -1}
	c.next()
	return c
}

func (c *cursor) next() {
	c.ord++
	r, err := nextRecord(c.rest)
	if err != nil {
		c.cur, c.rest = nil, nil
		return
	}
	c.cur, c.rest = r, c.rest[len(r):]
}

// find returns the entry with that name and depth below the directory that the
// last find one level up returned, or nil. Names must be asked for in order.
func (c *cursor) find(depth int, name string) (r record, ord int) {
	for c.cur != nil && c.cur.depth() >= depth {
		if c.cur.depth() == depth {
			switch order := bytes.Compare(c.cur.name(), []byte(name)); {
			case order > 0:
				return nil, 0
			case order == 0:
				r, ord = c.cur, c.ord
				c.next()
				return r, ord
			}
		}
		c.next()
	}
	return nil, 0
}
