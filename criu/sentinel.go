package criu

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// sentinel freezes a container when an urgent CRIU that holds its tasks dies
// before it has answered. There are some ten microseconds for that: the kernel
// closes CRIU's descriptors, and then lets its tasks go. A CRIU that runs before
// all ordinary threads does so before one of those has noticed, so this one runs
// before CRIU, and waits in the kernel.
type sentinel struct {
	conn    int         // a second descriptor of the socket to CRIU
	stop    *os.File    // closing it ends the thread
	over    atomic.Bool // CRIU has answered: its end means nothing
	acted   atomic.Bool // the container was frozen
	stopped chan struct{}
}

// guardDump posts a sentinel for the dump that goes through conn.
func guardDump(conn *net.UnixConn, cgroups []string) (*sentinel, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("watch criu: %w", err)
	}
	fd := -1
	// Not File, which would make the socket a blocking one for both.
	if cerr := raw.Control(func(c uintptr) { fd, err = unix.FcntlInt(c, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("watch criu: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch criu: %w", err)
	}
	s := &sentinel{conn: fd, stop: w, stopped: make(chan struct{})}
	go func() {
		defer close(s.stopped)
		defer r.Close()
		s.wait(int(r.Fd()), cgroups)
	}()
	return s, nil
}

// wait is the thread. It is not given back to the runtime, because of its
// priority.
func (s *sentinel) wait(stop int, cgroups []string) {
	runtime.LockOSThread()
	// Without the right to it the thread is as quick as others.
	was, err := unix.SchedGetAttr(0, 0)
	if err == nil && unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: schedRR, Priority: 2, Flags: schedResetOnFork,
	}, 0) == nil {
		// It may be the main thread of the process, which can't be thrown away.
		defer func() { _ = unix.SchedSetAttr(0, was, 0) }()
	}
	fds := []unix.PollFd{{Fd: int32(s.conn), Events: unix.POLLRDHUP}, {Fd: int32(stop)}}
	for {
		_, err := unix.Poll(fds, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil || fds[1].Revents != 0 || s.over.Load() {
			return
		}
		var b [1]byte
		n, _, err := unix.Recvfrom(s.conn, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if err == nil && n > 0 {
			return // its answer, which nobody has read yet
		}
		s.acted.Store(true)
		_ = freeze(cgroups, true) // whoever finds CRIU dead tries again
		return
	}
}

// answered tells that CRIU has done its work.
func (s *sentinel) answered() { s.over.Store(true) }

// leave ends the thread; true if it has frozen the container.
func (s *sentinel) leave() bool {
	s.stop.Close()
	<-s.stopped
	unix.Close(s.conn)
	return s.acted.Load()
}
