package recovery

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// sessions are the execs that run in a container. It may be used concurrently.
type sessions struct {
	mu   sync.Mutex // guards everything below
	fds  []int      // pidfds: a PID may be used again
	over bool
}

// add follows an exec. One that has ended already is not.
//
// Errors: those of pidfd_open(2), Linux 5.3.
func (s *sessions) add(pid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	s.fds = append(s.fds, fd)
	return nil
}

// look returns how many run, and how many have ended since the last look.
func (s *sessions) look() (running, ended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.fds[:0]
	for _, fd := range s.fds {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 0); err == nil && n > 0 {
			ended++
			_ = unix.Close(fd)
			continue
		}
		kept = append(kept, fd)
	}
	s.fds = kept
	return len(kept), ended
}

// close forgets all of them.
func (s *sessions) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range s.fds {
		_ = unix.Close(fd)
	}
	s.fds, s.over = nil, true
}
