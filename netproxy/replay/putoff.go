package replay

import "github.com/crsc-io/crsc/journal"

// PutOff moves the requests of clients that nobody had answered behind all others, with
// what followed on their connections: those of connections that are named later, the more
// so the more often they are. It reports whether there are any. Such a request may be one
// for which nothing was done yet, as the application had no room for it: its pool of
// connections to a server had none left. Given at the time at which it was taken, it may
// have that room before one for which something was done.
func (p *Plan) PutOff(last []uint32) bool {
	requests := p.requests()
	times := map[uint32]int{}
	for _, id := range last {
		times[id]++
	}
	rank := make([]int, len(p.Steps))
	late := map[*Conn]int{}
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.Conn == nil || s.Conn.Direction == journal.Out {
			continue
		}
		if s.Kind == Feed && requests[i].end == 0 || s.Kind == Tail && s.answer(0) == len(s.Conn.Outputs) {
			s.Late = true
			late[s.Conn] = 1 + times[s.Conn.ID]
		}
		rank[i] = late[s.Conn]
	}
	p.arrange(rank)
	return len(late) > 0
}
