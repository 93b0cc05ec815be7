package replay

// Farewell is the plan for the connections of a checkpoint whose clients and
// servers are gone: the application takes what has arrived, and then sees their
// end. Those without a socket are left out.
func Farewell(t *Table, sockets map[uint32]Socket) *Plan {
	p := &Plan{Conns: map[uint32]*Conn{}, NextID: t.NextID}
	for _, cs := range t.Conns {
		s, ok := sockets[cs.ID]
		if !ok {
			continue
		}
		c := &Conn{ConnState: cs, Image: &s, Start: s.Received, consumed: s.Consumed}
		p.Conns[cs.ID] = c
		if !cs.InClosed {
			p.Steps = append(p.Steps, Step{Kind: Shut, Conn: c, Upto: c.end()})
		}
	}
	return p
}
