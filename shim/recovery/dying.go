package recovery

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/crsc-io/crsc/internal/cgroups"
	"github.com/crsc-io/crsc/netproxy"
)

// pfExiting is PF_EXITING of include/linux/sched.h. do_exit sets it before it
// closes the descriptors, so it is visible when the peer of a socket sees the
// FIN.
const pfExiting = 0x4

// processes watches the container's processes for signs of a crash.
type processes struct {
	procs string // the cgroup's cgroup.procs
	init  atomic.Int64

	mu    sync.Mutex  // guards everything below
	last  int64       // init at the last look
	known map[int]int // seen alive at the last look, with their parents
	dead  map[int]death
	buf   []byte
}

// death is one whose consequences are not known yet: the parent has not reaped
// the process, or has and does not sleep again.
type death struct {
	parent int
	seen   time.Time
	asleep time.Time // since when the parent was seen asleep; zero: it was not
	reaped bool
	ran    uint64 // by the parent when it was seen to have reaped, in ticks
}

const (
	// mourning bounds how long a death is looked after: some parents never reap.
	mourning = 250 * time.Millisecond
	// resting is how long a parent that has reaped must be seen asleep to be
	// believed to live on: it may just be telling somebody before it ends.
	resting = 2 * time.Millisecond
	// survived is how long a parent that has reaped must have run to be believed to
	// live on, in ticks (USER_HZ, 10 ms): more than one in full. A wrapper ends
	// within one.
	survived = 2
)

// watchProcesses follows the cgroup of pid, the container's init.
func watchProcesses(pid int) (*processes, error) {
	dir, err := cgroupDir(pid)
	if err != nil {
		return nil, err
	}
	p := &processes{procs: filepath.Join(dir, "cgroup.procs"), known: map[int]int{}, dead: map[int]death{}, buf: make([]byte, 4096)}
	p.follow(pid)
	p.look()
	return p, nil
}

// follow makes pid the init, after a restore.
func (p *processes) follow(pid int) { p.init.Store(int64(pid)) }

// The list of processes is read often while they start, then every second: one
// that dies before it was seen may be taken for one that lives on.
const (
	firstLook    = 5 * time.Millisecond
	lookInterval = time.Second
)

// watch reads the list now and then until ctx ends.
func (p *processes) watch(ctx context.Context) {
	for next := firstLook; ; next = min(2*next, lookInterval) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
			p.look()
		}
	}
}

// dying reports whether the init is exiting, or another process of the
// container is or has gone since the last look, or its parent has not yet dealt
// with that: the child of a wrapper (a shell, tini) dies first, and the init
// follows. A parent that a dump has stopped can't follow until the dump is over.
func (p *processes) dying() netproxy.Dying {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.read(int(p.init.Load())).exiting {
		return netproxy.InitDying
	}
	dying := p.lookLocked()
	for pid := range p.dead {
		switch p.consequence(pid) {
		case netproxy.InitDying:
			return netproxy.InitDying
		case netproxy.ChildDying:
			dying = true
		case netproxy.Alive:
			delete(p.dead, pid)
		}
	}
	if dying {
		return netproxy.ChildDying
	}
	return netproxy.Alive
}

// consequence tells what follows from the death of pid: nothing (Alive), or
// that is not known yet.
func (p *processes) consequence(pid int) netproxy.Dying {
	// In this order: what the parent does counts from when it has reaped.
	reaped := p.read(pid).state == 0
	d := p.dead[pid]
	parent := p.read(d.parent)
	now := time.Now()
	if reaped && !d.reaped {
		d.reaped, d.ran = true, parent.ran
	}
	switch {
	case parent.state == 't' || parent.state == 'D':
		return netproxy.InitDying // stopped by a dump, or frozen
	case parent.exiting && d.parent == int(p.init.Load()):
		return netproxy.InitDying
	case now.Sub(d.seen) > mourning:
		return netproxy.Alive
	case parent.exiting:
		// A death of its own, which look finds next.
		return netproxy.ChildDying
	case d.reaped && parent.ran >= d.ran+survived:
		return netproxy.Alive
	case !reaped || parent.state != 'S' || !asleep(d.parent):
		d.asleep = time.Time{}
	case d.asleep.IsZero():
		d.asleep = now
	case now.Sub(d.asleep) > resting:
		return netproxy.Alive
	}
	p.dead[pid] = d
	return netproxy.ChildDying
}

// asleep tells a process that sleeps from one that is about to run but looks
// the same in its state: wait4 reaps in TASK_INTERRUPTIBLE (kernel/exit.c), and
// may be preempted there for long. /proc/PID/wchan is 0 for what is on a run
// queue (get_wchan of kernel/sched/core.c).
func asleep(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/wchan")
	return err == nil && len(b) > 0 && string(b) != "0"
}

// look is called now and then, so that a process is known before it dies.
func (p *processes) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lookLocked()
}

// lookLocked reads the list of processes again; true if one that was there is
// gone or exiting.
func (p *processes) lookLocked() bool {
	b, err := os.ReadFile(p.procs)
	if err != nil {
		return true // the cgroup itself has gone
	}
	if now := p.init.Load(); now != p.last {
		p.last = now
		clear(p.known) // those of the dead container
		clear(p.dead)
	}
	now, dying := make(map[int]int, len(p.known)), false
	for _, f := range bytes.Fields(b) {
		pid, err := strconv.Atoi(string(f))
		if err != nil {
			continue
		}
		st := p.read(pid)
		if !st.exiting {
			now[pid] = st.parent
			continue
		}
		dying = true
		if _, known := p.known[pid]; !known && st.state != 0 {
			p.known[pid] = st.parent
		}
	}
	for pid, parent := range p.known {
		if _, alive := now[pid]; alive {
			continue
		}
		dying = true
		if _, ours := now[parent]; ours {
			p.dead[pid] = death{parent: parent, seen: time.Now()}
		}
	}
	p.known = now
	return dying
}

// procState is what /proc/PID/stat says of a process.
type procState struct {
	state   byte // 0: there is no such process
	parent  int
	exiting bool
	ran     uint64 // the processor time of all its threads, in ticks
}

// read reads a process's state. A process that is not there has exited.
func (p *processes) read(pid int) procState {
	gone := procState{exiting: true}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return gone
	}
	defer f.Close()
	n, err := f.Read(p.buf)
	if err != nil {
		return gone
	}
	// The command name is in parentheses and may contain anything.
	rest := bytes.Fields(p.buf[bytes.LastIndexByte(p.buf[:n], ')')+1 : n])
	if len(rest) < 13 {
		return gone
	}
	// Fields 3 (state), 4 (parent), 9 (flags), 14 and 15 (processor time in user
	// and in kernel mode) of proc_pid_stat(5).
	st := procState{state: rest[0][0]}
	parent, perr := strconv.Atoi(string(rest[1]))
	flags, ferr := strconv.ParseUint(string(rest[6]), 10, 64)
	user, uerr := strconv.ParseUint(string(rest[11]), 10, 64)
	system, serr := strconv.ParseUint(string(rest[12]), 10, 64)
	if err := errors.Join(perr, ferr, uerr, serr); err != nil {
		return st
	}
	st.parent, st.ran = parent, user+system
	st.exiting = st.state == 'Z' || st.state == 'X' || flags&pfExiting != 0
	return st
}

// cgroupDir finds a cgroup of pid that lists its processes: the pids hierarchy
// of version 1, else version 2.
func cgroupDir(pid int) (string, error) {
	paths, err := cgroups.Of(pid)
	if err != nil {
		return "", err
	}
	for _, dir := range []string{paths.V1("pids"), paths.V1("freezer"), paths.V2()} {
		if dir != "" && isDir(dir) {
			return dir, nil
		}
	}
	return "", errors.New("no cgroup of the container's own was found under " + cgroups.Root)
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}
