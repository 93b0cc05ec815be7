package replay

import "slices"

// Exchange is a recorded request and what the other end had answered.
type Exchange struct {
	// Outputs are the request; none for what had been written before the cut.
	Outputs []Output
	// InFrom and InTo are the answer, as input offsets.
	InFrom, InTo uint64
	// Repeated: the request is in the record once more, further on.
	Repeated bool
}

// Length is that of the request, in bytes.
func (x *Exchange) Length() (n uint64) {
	for i := range x.Outputs {
		n += uint64(x.Outputs[i].Length)
	}
	return n
}

// Exchanges divides the connection's record: a request is what the application
// wrote before the other end spoke. The first of a connection that the
// checkpoint's image holds is the one that the cut fell into, or the last before
// it. It is not ok if a stretch of output lies on both sides of the cut and its bytes
// are not known.
func (c *Conn) Exchanges() (list []Exchange, ok bool) {
	outs, gates := c.Outputs, c.gates
	var from, in uint64
	answer := func() {
		for len(gates) > 0 && (gates[0].out <= from || len(outs) == 0) {
			in = max(in, gates[0].end)
			gates = gates[1:]
		}
	}
	if c.Image != nil {
		from, in = max(c.Image.Acked, c.OutRead), c.Image.Received
		for len(outs) > 0 && outs[0].End() <= from {
			outs = outs[1:]
		}
		if len(outs) > 0 && outs[0].Offset < from {
			// Written while the checkpoint was made.
			first := outs[0]
			if first.Bytes == nil {
				return nil, false
			}
			first.Bytes, first.Length, first.Offset = first.Bytes[from-first.Offset:], uint32(first.End()-from), from
			outs = append([]Output{first}, outs[1:]...)
		}
		answer()
		list = append(list, Exchange{InFrom: c.Image.Consumed, InTo: in})
	}
	for len(outs) > 0 {
		x, n := Exchange{InFrom: in}, 0
		for n < len(outs) && (n == 0 || len(gates) == 0 || gates[0].out > from) {
			from = outs[n].End()
			n++
		}
		x.Outputs, outs = outs[:n], outs[n:]
		x.Repeated = slices.Contains(c.repeated, x.Outputs[0].Offset)
		answer()
		x.InTo = in
		list = append(list, x)
	}
	// What came without a request is not an answer.
	return list, len(gates) == 0 && in == c.end()
}
