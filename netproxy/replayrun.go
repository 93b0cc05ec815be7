package netproxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/tcprepair"
)

var (
	// ErrDiverged is returned by Replay when the restored application wrote
	// something else than what its clients were sent.
	ErrDiverged = errors.New("netproxy: the replay diverged")
	// ErrStalled is returned by Replay when the application does not take its
	// input, or does not produce the output that preceded it, for StallAfter.
	ErrStalled = errors.New("netproxy: the replay stalled")
)

const (
	// StallAfter bounds the wait for one step of a replay.
	StallAfter = 15 * time.Second
	// sleepMargin is how much later than due something may come in a replay.
	sleepMargin = 300 * time.Millisecond
	// sleepFor is how long an application must be seen asleep to be believed: its
	// threads are looked at one after the other.
	sleepFor = 5 * aheadQuiet
	// dialTimeout bounds the handshake of one leg over loopback.
	dialTimeout = time.Second
	// ghostLife is how long the leg of a client that is gone may wait for the
	// application's close after a replay.
	ghostLife = 10 * time.Second
	// spinTurns is how often a wait looks at the order source before it lets
	// the kernel run something else: about the time in which a small request
	// is taken.
	spinTurns = 6000
)

// ReplayResult tells what a replay did.
type ReplayResult struct {
	Steps     int
	Bytes     int64  // input bytes that were fed
	Swallowed uint64 // output bytes that clients already had
	Differing uint64 // stretches that came out differently
	Reset     int    // connections that could not go on
	Took      time.Duration
	// Slowest is the longest that one step took, SlowestStep its number from 0:
	// a replay that waits for one thing differs from one that has much to do.
	Slowest     time.Duration
	SlowestStep int
}

// Replay feeds the tail to the restored application and lets the connections
// go on. With tolerate, connections whose output differs are reset and the rest
// goes on; without, ErrDiverged is returned at once and the caller must bring
// the container down, call Crash and begin again.
func (p *Proxy) Replay(ctx context.Context, tolerate bool) (ReplayResult, error) {
	var res ReplayResult
	err := p.do(ctx, "replay", func() error {
		if p.phase != crashed || p.rep == nil {
			return fmt.Errorf("%w: replay", ErrPhase)
		}
		start, before := time.Now(), p.Stats()
		p.phase, p.rep.tolerate = replaying, tolerate
		p.rep.quiet.since, p.rep.started = start, start
		p.down.Store(false)
		for id, peer := range p.rep.peers {
			if c := p.rep.conns[id]; c != nil && c.legFD >= 0 {
				if err := tcprepair.Activate(c.legFD, &peer); err != nil {
					return fmt.Errorf("netproxy: connection %d: %w", id, err)
				}
			}
		}
		p.loosen()
		steps := p.rep.plan.Steps
		for i := range steps {
			begun, lost := time.Now(), len(p.rep.diverged)
			p.rep.at, p.rep.since, p.rep.begun = i, begun, begun
			step := p.step
			if steps[i].Late {
				step = p.stepLate
			}
			if err := step(&steps[i]); err != nil {
				return fmt.Errorf("step %d of %d: %w", i+1, len(steps), err)
			}
			done := time.Now()
			p.rep.lag = max(p.rep.lag, done.Sub(start)-steps[i].At)
			took := done.Sub(begun)
			if took > res.Slowest {
				res.Slowest, res.SlowestStep = took, i
			}
			if lost > 0 && len(p.rep.diverged) > lost {
				p.rep.vain += took
			}
		}
		if err := p.awaitOutputs(); err != nil {
			return fmt.Errorf("after the last of %d steps: %w", len(steps), err)
		}
		if err := p.checkSessions(); err != nil {
			return err
		}
		if err := p.settleReplies(); err != nil {
			return err
		}
		res.Steps, res.Bytes = len(steps), p.rep.fed
		res.Reset = p.goLive()
		after := p.Stats()
		res.Swallowed, res.Differing = after.Swallowed-before.Swallowed, after.Differing-before.Differing
		res.Took = time.Since(start)
		return nil
	})
	return res, err
}

// step carries out one step of the plan.
func (p *Proxy) step(s *replay.Step) error {
	if s.Kind == replay.Receive {
		return p.receive(s.Datagram)
	}
	c := p.rep.conns[s.Conn.ID]
	if c.upstream != nil {
		return p.stepUpstream(c, s)
	}
	switch s.Kind {
	case replay.Open:
		return p.reopen(c)
	case replay.Connect, replay.Fail:
		return p.reconnect(c, s)
	}
	if s.Kind == replay.Shut || s.Kind == replay.Reset {
		p.spareLeg(c, s.Conn)
		if c.unopened {
			p.abandon(c) // the application has put another in its place
			return p.checkReplay()
		}
	}
	if ready, err := p.awaitLeg(c, s); !ready {
		return err
	}
	if c.outPos < s.Gate {
		if err := p.await(c, 0, s.Gate); err != nil {
			return fmt.Errorf("output of connection %d up to %d: %w", c.id, s.Gate, err)
		}
		if ready, err := p.awaitLeg(c, s); !ready {
			return err
		}
	}
	if s.Upto > c.inSent {
		c.unidentified = false // from here on it is bound
	}
	if err := p.feed(c, s); err != nil {
		return err
	}
	switch s.Kind {
	case replay.Feed:
		if err := p.await(c, s.Upto, 0); err != nil {
			return fmt.Errorf("input of connection %d up to %d: %w", c.id, s.Upto, err)
		}
		if err := p.awaitAnswer(c, s.Answer); err != nil {
			return err
		}
	case replay.Tail:
		if p.src.Serial() && c.in.empty() {
			return p.awaitTail(c, s.Upto)
		}
	case replay.Shut:
		if c.in.empty() {
			p.shutLeg(c)
		} else {
			c.closing[clientSide] = true // shut when that is delivered
		}
	case replay.Reset:
		closeReset(c.legFD)
		c.legFD = -1
	}
	return p.checkReplay()
}

// awaitLeg waits for a leg to deliver the step's input to: that of the connection
// may have turned out to be another's. It is not ready if there is nothing to
// deliver to.
func (p *Proxy) awaitLeg(c *conn, s *replay.Step) (ready bool, err error) {
	missing := func() bool { return c.unopened && c.inSent < s.Upto }
	if missing() && !c.gone {
		if err := p.awaitOpen(c, missing); err != nil {
			return false, err
		}
	}
	if c.legFD < 0 || c.failed[legSide] || c.diverged {
		return false, p.checkReplay()
	}
	return true, nil
}

// feed delivers input up to the step's end, or, in the tail, what the socket
// takes: the rest goes on like live input.
func (p *Proxy) feed(c *conn, s *replay.Step) error {
	deadline := time.Now().Add(p.stallLimit())
	for c.inSent < s.Upto && !c.failed[legSide] {
		data := s.Conn.Slice(c.inSent, s.Upto)
		if s.Kind == replay.Tail && (!c.in.empty() || p.mustWait(c)) {
			// Behind what an earlier step could not deliver yet.
			c.in.add(&p.pool, s.Conn.Slice(c.inSent+uint64(len(c.in.bytes())), s.Upto))
			return nil
		}
		if len(data) == 0 {
			return fmt.Errorf("%w: connection %d at %d", replay.ErrIncomplete, c.id, c.inSent)
		}
		n := p.deliver(c, data)
		p.rep.fed += int64(n)
		if n == len(data) {
			return nil
		}
		if s.Kind == replay.Tail {
			c.in.add(&p.pool, data[n:])
			return nil
		}
		if err := p.turn(100); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
		if now := time.Now(); now.After(deadline) || p.asleep(now) {
			return fmt.Errorf("%w: connection %d does not take input", ErrStalled, c.id)
		}
	}
	return nil
}

// stallLimit bounds the wait for one step. Once something has come out
// differently, the steps that depended on it must not each take their time.
func (p *Proxy) stallLimit() time.Duration {
	if len(p.rep.diverged) > 0 {
		return p.strayLeft()
	}
	return p.opts.stallAfter
}

// strayLeft is what a step may take of the time that all together have to wait for what
// may never come.
func (p *Proxy) strayLeft() time.Duration { return max(strayLimit-p.rep.vain, idleLimit) }

// reopen opens a connection again that was opened after the cut.
func (p *Proxy) reopen(c *conn) error {
	deadline := time.Now().Add(p.stallLimit())
	for {
		err := p.dialAgain(c)
		if err == nil {
			return p.checkReplay()
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("open connection %d (%s to %s) again: %w", c.id, c.client, c.dest, err)
		}
		if now := time.Now(); now.After(deadline) || p.asleep(now) {
			return fmt.Errorf("%w: nobody listens on %s", ErrStalled, c.dest)
		}
		if err := p.turn(2000); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
	}
}

// await waits until the connection's input is consumed up to one offset and its
// output has come up to another.
func (p *Proxy) await(c *conn, consumed, out uint64) error {
	var deadline time.Time
	for i := 0; ; i++ {
		if p.src.Serial() && c.inConsumed < consumed && p.turns.now != c {
			p.takeTurn(c) // also if it was given before (Urge)
		}
		if err := p.pollOrder(); err != nil {
			return err
		}
		if c.inConsumed >= consumed && c.outPos >= out || c.diverged {
			return nil
		}
		if c.eof[legSide] || c.failed[legSide] {
			// The application has ended the connection earlier than it did in
			// the recorded run, for instance because a timeout of its own had
			// passed.
			p.differ(c)
			return p.checkReplay()
		}
		var wait int64
		switch {
		case out > 0 || i%1024 == 1023:
			// Output has to be read, or the application may block on it.
		case i%256 == 255:
			// The application may be waiting for this very processor.
			if !schedYield() {
				i = spinTurns
			}
			continue
		case i < spinTurns:
			continue
		}
		if i >= spinTurns {
			p.feedAhead()
			wait = 50
			now := time.Now()
			if deadline.IsZero() {
				deadline = now.Add(p.stallLimit())
			} else if now.After(deadline) || p.asleep(now) {
				if !p.rep.tolerate {
					return fmt.Errorf("%w%s", ErrStalled, p.upstreamState())
				}
				p.differ(c)
				return nil
			}
		}
		if err := p.turn(wait); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
	}
}

// awaitAnswer waits for the answer to what was fed, for as long as the application
// is at work, within the limit of a step. One that sleeps may need for it what comes
// next.
func (p *Proxy) awaitAnswer(c *conn, out uint64) error {
	begun := time.Now()
	for c.outPos < out && !ended(c) && !c.diverged {
		now := time.Now()
		if now.Sub(begun) > aheadQuiet && p.still(now, aheadQuiet) {
			return nil
		}
		if now.Sub(begun) > p.stallLimit() {
			return fmt.Errorf("%w: the answer of connection %d up to %d", ErrStalled, c.id, out)
		}
		if err := p.turn(50); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
	}
	return nil
}

// asleep reports that what the present step waits for does not come: every thread of
// the application sleeps, and no timer of its own will wake it in time. A timer runs
// from something that happens in the replay as well, at most lag later than it did
// in the recorded run, and has led to what the step waits for by the time that is
// recorded.
func (p *Proxy) asleep(now time.Time) bool {
	rep := p.rep
	due := rep.started.Add(rep.plan.Steps[rep.at].At + rep.lag + sleepMargin)
	switch {
	case p.opts.Idle == nil, rep.plan.Fresh && rep.at == 0, now.Before(due), now.Sub(rep.since) < sleepMargin:
		return false
	case now.Sub(rep.ahead) < 2*aheadAfter, p.egress != nil && now.Sub(p.egress.dropped) < synAgain:
		return false
	case !p.still(now, aheadQuiet):
		rep.quiet.slept = time.Time{}
		return false
	case rep.quiet.slept.IsZero():
		rep.quiet.slept = now
	}
	return now.Sub(rep.quiet.slept) > sleepFor
}

// checkReplay ends a replay that has lost its sense.
func (p *Proxy) checkReplay() error {
	switch {
	case p.abort.Load():
		return ErrAborted
	case p.failed != nil:
		return p.failed
	case len(p.rep.diverged) > 0 && !p.rep.tolerate:
		return fmt.Errorf("%w: connections %v", ErrDiverged, p.rep.diverged)
	}
	if p.egress != nil {
		return errors.Join(p.checkStray(), p.checkHeld(false), p.checkAsked())
	}
	return nil
}

// goLive ends the replay; it returns the number of connections that can't go
// on and are reset.
func (p *Proxy) goLive() int {
	lost := 0
	rep := p.rep
	for _, c := range rep.outgoing {
		c.unidentified = false
	}
	lost += p.launch(rep) + p.bindUpstreams()
	p.rep, p.phase, p.triggered = nil, live, false
	p.firstSuspect.Store(0)
	p.ghostsUntil = time.Now().Add(ghostLife)
	p.resumeDatagrams(rep.plan)
	if p.egress != nil {
		p.egress.expectUntil, p.egress.undecided = time.Now().Add(reopenLimit), true
	}
	p.opts.Journal.AppendMark(journal.RecoveryComplete, 0)
	for _, c := range p.slots {
		if c == nil || c.stray { // its handshake is under way
			continue
		}
		if rep.conns[c.id] == nil && !c.closing[legSide] || c.diverged || ended(c) && c.outPos < c.outRead {
			lost++
			p.opts.Log.WithFields(connFields(c)).Error("netproxy: connection can't go on after the recovery; reset")
			p.appendClose(c, journal.In, true, c.inRead)
			p.destroy(c, true)
			continue
		}
		if c.ghost() && c.legFD < 0 {
			p.destroy(c, true)
			continue
		}
		p.closes = append(p.closes, c)
		p.activate(c)
	}
	p.acceptDue = true
	return lost
}

// ended reports whether the application has closed its end.
func ended(c *conn) bool { return c.eof[legSide] || c.failed[legSide] }

// expireGhosts resets legs without clients whose application does not close.
func (p *Proxy) expireGhosts() {
	if p.ghostsUntil.IsZero() || p.phase != live || time.Now().Before(p.ghostsUntil) {
		return
	}
	p.ghostsUntil = time.Time{}
	p.dropGhosts()
}
