package netproxy

import "time"

// spin decides whether the loop goes on looking for events for some microseconds
// before it sleeps. Where a few connections ask and are answered, each message wakes
// somebody on a processor that had nothing to do, which takes longer than most
// answers: in a virtual machine it is an interrupt through the hypervisor. With more
// connections, or others that want to run, processors have work, and looking would take
// them from it. It belongs to the loop.
type spin struct {
	window uint32 // number of the present window of turns
	turns  int    // in the window
	moved  int    // connections that moved in the window
	few    bool   // they were few in the window before
	// delay is how long the loop has waited for a processor since the last call; false:
	// not known. counted are the turns since.
	delay    func() (time.Duration, bool)
	counted  int
	rest     luck // in windows: processors were not scarce
	expected expected
	luck     [2]luck // in waits, by expected
}

// spun is what a connection had done when it moved last.
type spun struct {
	window  uint32 // its number and one; 0: none
	in, out uint64 // the streams
}

// expected is what comes next.
type expected int

const (
	anAnswer   expected = iota // of the application
	anyRequest                 // of a client
)

// luck is how something has gone lately that is tried again and again.
type luck struct {
	pause int // so many chances to let pass before the next try
	after int // how many to let pass after the next failure
}

func (l *luck) learn(good bool) {
	if good {
		l.after /= 2
		return
	}
	l.after = min(2*l.after+1, spinPause)
	l.pause = l.after
}

// due reports whether to take this chance.
func (l *luck) due() bool {
	if l.pause > 0 {
		l.pause--
		return false
	}
	return true
}

const (
	// spinFor is how long the loop looks. Sleeping and waking takes as long.
	spinFor = 50 * time.Microsecond
	// spinGap between two looks means that somebody else has work for this processor.
	spinGap = 20 * time.Microsecond
	// spinWindow is how many turns are looked at together.
	spinWindow = 32
	// spinFew is how many connections may move in so many turns. With two processors
	// six gain nothing, and fifty lose a fifth of their throughput.
	spinFew = 4
	// spinDelay is how long the loop waits for a processor in a turn, in the mean, where
	// they are scarce: who looks then has less of them for its work. With one to spare
	// it is below 5 µs, on two that twenty others want 11 to 60.
	spinDelay = 8 * time.Microsecond
	// spinPause bounds the chances between two tries that fail.
	spinPause = 255
)

// saw is told which connections were looked at in a turn.
func (s *spin) saw(work []*conn) {
	if len(work) == 0 {
		return
	}
	for _, c := range work {
		if c.spun.window != s.window+1 {
			c.spun.window = s.window + 1
			s.moved++
		}
		switch {
		case c.outRead != c.spun.out:
			s.expected = anyRequest
		case c.inRead != c.spun.in:
			s.expected = anAnswer
		}
		c.spun.in, c.spun.out = c.inRead, c.outRead
	}
	s.counted++
	if s.turns++; s.turns == spinWindow {
		s.few = s.moved <= spinFew && s.rest.due() && s.processorsFree()
		s.window++
		s.turns, s.moved = 0, 0
	}
}

// processorsFree reports whether the loop was hardly ever kept waiting for one since
// the last call.
func (s *spin) processorsFree() bool {
	waited, ok := s.delay()
	free := waited < time.Duration(s.counted)*spinDelay
	s.counted = 0
	s.rest.learn(free)
	return ok && free
}

// due reports whether to look before this wait.
func (s *spin) due() bool {
	return s.few && s.moved <= spinFew && s.luck[s.expected].due()
}

// learn is told whether looking was worth it. Where it seldom is, it is seldom tried.
func (s *spin) learn(worth bool) { s.luck[s.expected].learn(worth) }

// waitEvents waits up to timeoutUS microseconds for events.
func (p *Proxy) waitEvents(timeoutUS int64) (int, error) {
	if p.phase == live && timeoutUS > spinFor.Microseconds() && p.spin.due() {
		n, err := p.lookOut()
		if n > 0 || err != nil {
			return n, err
		}
	}
	return epollWait(p.epfd, p.events, timeoutUS)
}

// lookOut polls for events.
func (p *Proxy) lookOut() (n int, err error) {
	begun, last := time.Now(), time.Duration(0)
	for n == 0 && err == nil && last <= spinFor {
		n, err = epollWait(p.epfd, p.events, 0)
		now := time.Since(begun)
		if now-last > spinGap {
			p.spin.learn(false)
			return n, err
		}
		last = now
	}
	p.spin.learn(n > 0)
	return n, err
}
