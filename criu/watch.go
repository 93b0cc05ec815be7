package criu

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A task that is killed while CRIU holds it makes CRIU wait for ever for an
// answer of the code it runs in the task. A watch kills CRIU then.
type watch struct {
	init  int   // of the container
	tasks []int // its processes when the dump began
	kill  func()
	// died is set before kill is called because the init is gone: nothing has
	// to be mended then. Otherwise it was another process.
	died atomic.Bool
}

const (
	// watchInterval bounds how much later a crash in the middle of a dump is
	// acted upon.
	watchInterval = 2 * time.Millisecond
	// watchOthers is how often processes other than the init are looked at,
	// and how long a dying one may be held: CRIU notices most by itself.
	watchOthers = 250 * time.Millisecond
)

// run watches until stop is closed.
func (w *watch) run(stop <-chan struct{}) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	looked, stuck := time.Now(), false
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if exiting(w.init) {
			w.died.Store(true)
			w.kill()
			return
		}
		if time.Since(looked) < watchOthers {
			continue
		}
		looked = time.Now()
		was := stuck
		if stuck = w.stuck(); was && stuck {
			w.kill()
			return
		}
	}
}

// stuck reports whether a process is dead and held by a tracer.
func (w *watch) stuck() bool {
	for _, pid := range w.tasks {
		if _, err := statFields(pid); err == nil && exiting(pid) && tracer(pid) != 0 {
			return true
		}
	}
	return false
}

// pfExiting is PF_EXITING of the kernel's include/linux/sched.h: do_exit has
// begun, nothing of the process is run any more.
const pfExiting = 0x4

// exiting reports whether a process has ended, or begun to.
func exiting(pid int) bool {
	f, err := statFields(pid)
	if err != nil {
		return true
	}
	flags, err := strconv.ParseUint(f[6], 10, 64)
	return f[0] == "Z" || f[0] == "X" || (err == nil && flags&pfExiting != 0)
}

// tracer returns the process that traces pid, or 0.
func tracer(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "TracerPid:")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return n
}
