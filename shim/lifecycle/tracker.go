package lifecycle

import "sync"

// tracker matches exits with processes by PID.
//
// A PID that is reused between its exit being reaped and being handled here can
// be attributed to its new owner. The window is some microseconds and the
// kernel hands out PIDs in a cycle, so this takes a wrap-around within them.
type tracker struct {
	// mu guards the maps here and launch.early.
	mu       sync.Mutex
	owners   map[int]owner
	launches map[*launch]struct{}
}

// owner is a process together with its container.
type owner struct {
	container *Container
	process   *process
}

// launch collects all exits while a process is being started, because its PID
// becomes known only after it may already have died.
type launch struct {
	tracker *tracker
	early   map[int]Exit
}

func newTracker() *tracker {
	return &tracker{owners: make(map[int]owner), launches: make(map[*launch]struct{})}
}

// launch begins to collect. The caller ends it with adopt or end.
func (t *tracker) launch() *launch {
	l := &launch{tracker: t, early: make(map[int]Exit)}
	t.mu.Lock()
	t.launches[l] = struct{}{}
	t.mu.Unlock()
	return l
}

// adopt ends the launch: pid belongs to o from now on. If it has exited
// already, adopt returns its exit and true instead of recording it.
func (l *launch) adopt(pid int, o owner) (Exit, bool) {
	l.tracker.mu.Lock()
	defer l.tracker.mu.Unlock()
	delete(l.tracker.launches, l)
	if e, ok := l.early[pid]; ok {
		return e, true
	}
	l.tracker.owners[pid] = o
	return Exit{}, false
}

// end ends the launch if adopt has not.
func (l *launch) end() {
	l.tracker.mu.Lock()
	delete(l.tracker.launches, l)
	l.tracker.mu.Unlock()
}

// exited returns the owner of the process that ended, if it is one of ours.
func (t *tracker) exited(e Exit) (owner, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.launches {
		l.early[e.Pid] = e
	}
	o, ok := t.owners[e.Pid]
	delete(t.owners, e.Pid)
	return o, ok
}
