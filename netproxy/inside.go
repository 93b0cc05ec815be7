package netproxy

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// inside takes the loop into the container's network namespace, where sockets
// have to be made, and back. Only meanwhile is its goroutine bound to a thread:
// the runtime preempts a goroutine that is busy for 10 ms, and one that is bound
// then waits for another thread to be woken, and for that one to wake its own,
// which takes milliseconds where processors are scarce. Calls nest. It belongs to
// the loop.
type inside struct {
	ns    int // descriptor of the container's namespace
	home  int // of the process's own; -1: none
	depth int
}

// open must be called by a goroutine that is bound to no thread: the threads that
// the runtime gives to those are always at home.
func (in *inside) open(ns int) (err error) {
	in.ns = ns
	if in.home, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("netproxy: open own network namespace: %w", err)
	}
	return nil
}

// enter must be followed by leave unless it fails.
func (in *inside) enter() error {
	if in.depth > 0 {
		in.depth++
		return nil
	}
	runtime.LockOSThread()
	if e := setNetNS(in.ns); e != 0 {
		runtime.UnlockOSThread()
		return fmt.Errorf("netproxy: enter the container's network namespace: %w", e)
	}
	in.depth = 1
	return nil
}

// leave goes back. A thread that can't is never given back to the runtime: the
// loop then stays inside, and bound to it, until it ends.
func (in *inside) leave() {
	if in.depth--; in.depth > 0 {
		return
	}
	if setNetNS(in.home) != 0 {
		in.depth = 1
		return
	}
	runtime.UnlockOSThread()
}
