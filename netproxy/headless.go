package netproxy

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/order"
)

// headlessFor bounds how long output is left unread because the init has
// exited: Crash or Close come within milliseconds. If they do not, it was not
// the end of the container.
const headlessFor = time.Second

// exited is called for each task that exits, in its place among the events.
//
// What other processes of the container write after the init has begun to exit
// is about its death: they see it by a pipe that closes, and the kernel gives
// them some hundred microseconds before it kills them. PostgreSQL's backends
// tell their clients that the postmaster is gone. From the exit on output stays
// in the legs: Crash drops it, since a replay writes anew what was owed to
// clients, and Close passes it on.
func (p *Proxy) exited(e order.Exit) {
	// The last of a process' tasks closes its files, and by then its first has
	// begun to exit.
	if e.TGID != e.PID || p.opts.Init == nil || int(e.TGID) != p.opts.Init() || p.phase != live {
		return
	}
	p.headless, p.headlessAt = true, time.Now()
	p.firstSuspect.CompareAndSwap(0, p.headlessAt.UnixNano())
}

// lookForExit takes the events that have come, for pollOrder to work off, and
// sees whether the init has exited. It runs before output is read: what is
// written after an exit is read after it was told of.
func (p *Proxy) lookForExit() error {
	if p.src.Serial() {
		return nil
	}
	if p.headless && time.Since(p.headlessAt) > headlessFor {
		p.headless = false
		if len(p.suspects) == 0 {
			p.firstSuspect.Store(0)
		}
		for _, c := range p.slots {
			if c != nil {
				p.activate(c)
			}
		}
	}
	return p.src.Poll(p.keepEvent)
}

func (p *Proxy) keepEvent(e order.Event) { p.taken = append(p.taken, e) }

// owed is the position up to which the application's output must be read after
// a crash: at the cut our kernel had acknowledged it, so no image has it.
func owed(c *conn) uint64 {
	if c.legFD < 0 {
		return c.outPos
	}
	n, err := unix.IoctlGetInt(c.legFD, unix.SIOCINQ)
	if err != nil {
		n = 0 // a socket that is gone
	}
	return c.outPos + uint64(n)
}
