package netproxy

import (
	"fmt"
	"time"

	"github.com/crsc-io/crsc/netproxy/replay"
)

// CrowdedError is returned by Replay when requests to a server that have no record may
// have all connections of the application's pool, so that recorded ones are not made: the
// pool had given its connections to others in the recorded run. A replay in which the
// requests of clients come later that nobody had answered (replay.Plan.PutOff) may do
// better. It is an ErrDiverged as well.
type CrowdedError struct {
	// Vain are the connections of clients whose requests, in a plan in which some are put
	// off, led to none of those: they had better come last of all.
	Vain []uint32
	Err  error // what came of it
}

func (e *CrowdedError) Error() string { return e.Err.Error() }

func (e *CrowdedError) Unwrap() error { return e.Err }

func (p *Proxy) overcrowded(why string) error {
	return &CrowdedError{Vain: p.rep.vainly, Err: fmt.Errorf("%w: %s%s", ErrDiverged, why, p.upstreamState())}
}

// stepLate carries out a step that was put off, and waits until the application has done
// with it what it can. If that is nothing while recorded requests are not made, it has no
// room for more.
func (p *Proxy) stepLate(s *replay.Step) error {
	c := p.rep.conns[s.Conn.ID]
	recorded, asked, out := p.unmade(), p.asked(), c.outPos
	if err := p.step(s); err != nil || recorded == 0 {
		return err
	}
	for begun := time.Now(); ; {
		if err := p.turn(50); err != nil {
			return err
		}
		if err := p.checkReplay(); err != nil {
			return err
		}
		if now := time.Now(); now.Sub(begun) > p.stallLimit() || p.still(now, aheadQuiet) && !p.answerAhead() {
			break
		}
	}
	switch {
	case p.unmade() < recorded:
	case p.asked() != asked:
		p.rep.vainly = append(p.rep.vainly, c.id)
	case len(p.rep.vainly) > 0 && c.outPos == out && !ended(c) && !p.rep.tolerate:
		return p.overcrowded("the application has no room for another request")
	}
	return nil
}

// unmade is how many recorded requests to servers were not made again that make a
// difference.
func (p *Proxy) unmade() (n int) {
	for _, u := range p.rep.upstreams {
		for _, x := range u.open {
			if x.matters() {
				n++
			}
		}
	}
	return n
}

// asked is how much the application has written to servers whose connections it makes
// requests on, in bytes.
func (p *Proxy) asked() (n uint64) {
	for _, u := range p.rep.upstreams {
		for _, v := range u.legs {
			n += v.outPos
		}
	}
	return n
}
