package recovery

import "time"

const (
	// lookoutInterval is between two looks at what nobody tells.
	lookoutInterval = 250 * time.Millisecond
	// lasting is the age from which on a new connection is worth a checkpoint.
	lasting = time.Second
	// statusEvery is between two updates of the status for the sake of figures
	// that change all the time.
	statusEvery = 2 * time.Second
)

// lookout watches for what is a reason for a checkpoint and that nobody tells:
// standard input, the ends of execs, connections that last, pressure.
type lookout struct {
	g         *guard
	memory    memoryFiles
	pid       int  // whose memory files they are
	ignore    bool // the files can't be read, which has been logged
	newcomers newcomers
	premises  premises
}

// watchOut looks until the guard is closed.
func (g *guard) watchOut() {
	defer g.sessions.close()
	l := &lookout{g: g, premises: premises{dir: g.dir}}
	changing := !g.cfg.Pressure.IsZero() || g.cfg.RecoveryTarget > 0
	tick := time.NewTicker(lookoutInterval)
	defer tick.Stop()
	written := time.Now()
	for {
		select {
		case <-g.ctx.Done():
			return
		case now := <-tick.C:
			l.look(now)
			if changing && now.Sub(written) >= statusEvery && g.alive() {
				written = now
				g.writeStatus()
			}
		}
	}
}

// alive: a status that says how the container ended must stay.
func (g *guard) alive() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ready && !g.recovering
}

func (l *lookout) look(now time.Time) {
	g := l.g
	if !g.alive() {
		return
	}
	l.inspect(now)
	running, ended := g.sessions.look()
	g.sched.execs(running)
	if ended > 0 {
		g.noteInput(input{at: now, what: "exec ended", counts: g.cfg.Unreplayable.Exec})
	}
	if g.sched.stdinAdvanced() {
		g.noteInput(input{at: now, what: "standard input", counts: g.cfg.Unreplayable.Stdin})
	}
	if l.lastingConnection(now) {
		g.noteInput(input{at: now, what: "long-lived connection", counts: g.cfg.Unreplayable.Connection})
	}
	if !g.cfg.Pressure.IsZero() {
		l.feel(now)
	}
}

// inspect ends the protection, until the next checkpoint, if there is nothing left
// to recover from.
func (l *lookout) inspect(now time.Time) {
	if l.g.isBlind() {
		l.premises.forget()
		return
	}
	err := l.premises.look(now)
	if err == nil {
		return
	}
	l.premises.forget()
	if err := l.g.proxy.LoseJournal(l.g.ctx, err); err != nil {
		return // it is being closed
	}
	if err := l.g.listenAgain(); err != nil {
		l.g.log.WithError(err).Warn("the control socket of before was not closed")
	}
}

// feel measures the pressure.
func (l *lookout) feel(now time.Time) {
	if pid := l.g.c.Pid(); pid != l.pid {
		files, err := memoryFilesOf(pid)
		if err != nil {
			return // it is dying
		}
		l.pid, l.memory, l.ignore = pid, files, false
	}
	level, err := l.memory.read(l.g.cfg.Pressure.Memory)
	if err != nil {
		if !l.ignore {
			l.g.log.WithError(err).Warn("memory pressure is not watched")
			l.ignore = true
		}
		return
	}
	l.g.sched.felt(now, level)
}

// lastingConnection reports, once for each, that a connection has become old
// that the last checkpoint does not have.
func (l *lookout) lastingConnection(now time.Time) bool {
	first, accepted := l.g.sched.firstNew()
	if l.g.proxy.Stats().Accepted == accepted {
		l.newcomers.since = nil
		return false
	}
	ids, err := l.g.proxy.OpenedFrom(l.g.ctx, first)
	if err != nil {
		return false // the proxy is being closed
	}
	return l.newcomers.seen(now, ids)
}

// newcomers are the connections that the last checkpoint does not have.
type newcomers struct {
	// since when they are known; zero for those that were told.
	since map[uint32]time.Time
}

// seen takes the list of those that are open now. It reports, once for each,
// that one has become old.
func (n *newcomers) seen(now time.Time, ids []uint32) (lasts bool) {
	since := make(map[uint32]time.Time, len(ids))
	for _, id := range ids {
		first, known := n.since[id]
		switch {
		case !known:
			first = now
		case !first.IsZero() && now.Sub(first) >= lasting:
			first, lasts = time.Time{}, true
		}
		since[id] = first
	}
	n.since = since
	return lasts
}
