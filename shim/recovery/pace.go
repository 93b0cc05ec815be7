package recovery

import "time"

const (
	// stallShare bounds the share of time in which a container is stopped for
	// checkpoints that are made to be on the safe side: one in stallShare.
	stallShare = 20
	// workShare bounds the share of time in which they are being made, which
	// takes processor time from everybody.
	workShare = 3
)

// pace says how soon a checkpoint may follow another, by what they cost. Its
// zero value: at once.
type pace struct {
	ended        time.Time
	stall, total average // nanoseconds
}

// note takes a complete checkpoint.
func (p *pace) note(ended time.Time, stall, total time.Duration) {
	p.ended = ended
	p.stall.learn(float64(stall))
	p.total.learn(float64(total))
}

// next is the earliest end of the rest after the last checkpoint.
func (p *pace) next() time.Time {
	if p.ended.IsZero() {
		return time.Time{}
	}
	rest := max(p.stall.mean*(stallShare-1), p.total.mean*(workShare-1))
	return p.ended.Add(time.Duration(rest))
}
