package recovery

import (
	"runtime/debug"
	"strings"
)

// journalFailed is called on the proxy's loop: nothing more is recorded.
// The next checkpoint begins the journal anew, if the fault has gone by then.
func (g *guard) journalFailed(err error) {
	g.wg.Go(func() {
		g.suspend(unprotected("journal: %s", strings.TrimPrefix(err.Error(), "journal: ")))
		g.wantCheckpoint("fault of the journal")
	})
}

// collapsed is called when the proxy has ended because of a defect of its own.
// There will be no checkpoint any more: each needs a proxy.
func (g *guard) collapsed(err error) { g.suspend(unprotected("%v", err)) }

// work runs one of the guard's goroutines. A defect in it ends the protection
// and not the shim, which would take the container with it; a crash is an exit
// from then on.
func (g *guard) work(name string, do func()) {
	g.wg.Go(func() {
		defer func() {
			if v := recover(); v != nil {
				g.log.WithField("stack", string(debug.Stack())).Errorf("internal error (%s): %v", name, v)
				g.suspend(unprotected("internal error (%s): %v", name, v))
			}
		}()
		do()
	})
}

// isBlind says that the protection has ended until the next complete checkpoint.
func (g *guard) isBlind() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.blind
}

// suspend ends the protection until the next complete checkpoint.
func (g *guard) suspend(reason error) {
	g.mu.Lock()
	g.blind = true
	g.mu.Unlock()
	g.setUnprotected(reason)
}

// journalStalled is called on the proxy's loop: clients wait because the journal
// can't be written, or with nil: they go on.
func (g *guard) journalStalled(err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	g.stalled.Store(&why)
	g.wg.Go(func() {
		why := *g.stalled.Load() // the latest, in whatever order these run
		if why != "" {
			g.log.Errorf("clients wait: the journal can't be written: %s", why)
		} else {
			g.log.Info("the journal can be written again")
		}
		g.mu.Lock()
		g.status.JournalFault = why
		g.mu.Unlock()
		g.writeStatus()
		g.publish(TopicJournalStalled, map[string]any{"error": why})
	})
}
