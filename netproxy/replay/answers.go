package replay

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/crsc-io/crsc/journal"
)

// HasAnswers says whether the plan may go by them (ByAnswers): what the
// application writes to a server that it has connected to is no answer.
func (p *Plan) HasAnswers() bool {
	for _, c := range p.Conns {
		if c.Direction == journal.Out {
			return false
		}
	}
	return !slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Conn == nil })
}

// ByAnswers gives the application one request after the other, in the order in which
// they were answered, in place of that in which it took them: where sessions wait for
// each other, for a lock of a database, who had it first is in no other record. A
// request that was overtaken, by others that were taken and answered meanwhile, had
// waited for something; one that was under way when it was answered may be what gave
// the lock back, and comes before it. What was not answered comes last.
func (p *Plan) ByAnswers() {
	requests := p.requests()
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Kind == Feed {
			s.Answer = requests[i].end
		}
	}
	p.arrange(p.turns(requests))
	p.Arranged = true
}

// arrange sorts the steps by what is given for each; those for which it is the same keep
// their order.
func (p *Plan) arrange(by []int) {
	order := make([]int, len(p.Steps))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(by[a], by[b]) })
	steps := make([]Step, len(p.Steps))
	for i, k := range order {
		steps[i] = p.Steps[k]
	}
	p.Steps = steps
}

// request is a step's input, taken at one time and answered at another: seqs.
type request struct {
	taken, answered int
	end             uint64 // output offset of the answer; 0: there is none
	overtaken       bool
}

// requests describes the input of each step.
func (p *Plan) requests() []request {
	list := make([]request, len(p.Steps))
	var answers []int // indices of requests, by the time of their answers
	claimed := map[*Conn]int{}
	for i := range p.Steps {
		s := &p.Steps[i]
		list[i] = request{taken: s.seq, answered: math.MaxInt}
		if s.Kind != Feed {
			continue
		}
		if k := s.answer(claimed[s.Conn]); k < len(s.Conn.Outputs) {
			o := &s.Conn.Outputs[k]
			claimed[s.Conn] = k + 1
			list[i].answered, list[i].end = o.Seq, o.End()
			list[i].taken = min(s.seq, o.Seq)
		}
		answers = append(answers, i)
	}
	slices.SortFunc(answers, func(a, b int) int { return cmp.Compare(list[a].answered, list[b].answered) })
	// Who was answered before i and taken after it has overtaken it. Of those that were
	// answered the one taken last says so, or, if it is of i's own connection, the one
	// taken last of all others.
	last, other := -1, -1
	for _, i := range answers {
		by := last
		if last >= 0 && p.Steps[last].Conn == p.Steps[i].Conn {
			by = other
		}
		list[i].overtaken = by >= 0 && list[by].taken > list[i].taken
		switch {
		case list[i].end == 0: // it was not answered
		case last < 0 || list[i].taken > list[last].taken:
			if last >= 0 && p.Steps[last].Conn != p.Steps[i].Conn {
				other = last
			}
			last = i
		case p.Steps[last].Conn != p.Steps[i].Conn && (other < 0 || list[i].taken > list[other].taken):
			other = i
		}
	}
	return list
}

// answer is the index of the first output behind the step's input. What the
// application wrote may have been recorded before it was looked what it had taken:
// then it is the first behind the input's record that the client had not been sent,
// unless input before has claimed it.
func (s *Step) answer(claimed int) int {
	outs, g := s.Conn.Outputs, s.Conn.gateOf(s.Upto)
	return sort.Search(len(outs), func(k int) bool {
		return outs[k].Seq > s.seq || k >= claimed && outs[k].Seq > g.seq && outs[k].End() > g.out
	})
}

// turns says where each step comes: twice the seq, and one less for what comes before.
func (p *Plan) turns(requests []request) []int {
	var freed []request // those that were overtaken, by the time of their answers
	for _, r := range requests {
		if r.overtaken && r.end > 0 {
			freed = append(freed, r)
		}
	}
	slices.SortFunc(freed, func(a, b request) int { return cmp.Compare(a.answered, b.answered) })
	turn := make([]int, len(requests))
	last := map[*Conn]int{}
	for i, r := range requests {
		s := &p.Steps[i]
		switch {
		case s.Kind != Feed:
			turn[i] = 2 * r.taken
		default:
			turn[i] = 2 * min(r.answered, math.MaxInt/2)
			if r.overtaken || r.end == 0 {
				break
			}
			k := sort.Search(len(freed), func(k int) bool { return freed[k].answered > r.taken })
			if k < len(freed) && freed[k].answered < r.answered {
				turn[i] = 2*freed[k].answered - 1
			}
		}
		turn[i] = max(turn[i], last[s.Conn])
		last[s.Conn] = turn[i]
	}
	return turn
}
