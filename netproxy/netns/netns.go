package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Current as a namespace descriptor means: the calling thread is already where
// the work has to be done. Event loops that live in the container's namespace
// on a locked thread use it to save the switch.
const Current = -1

// Do runs fn in the network namespace that fd refers to and returns fn's
// error. With Current, fn runs on the calling goroutine as it is.
//
// fn runs on a thread of its own goroutine; it must not start goroutines that
// rely on the namespace. When the thread cannot go back to its own namespace it
// is not handed back to the runtime but ends with the goroutine, and fn's
// result still counts.
func Do(fd int, fn func() error) error {
	if fd == Current {
		return fn()
	}
	result := make(chan error, 1)
	go func() {
		var err error
		defer func() { result <- err }() // also when fn calls runtime.Goexit
		runtime.LockOSThread()
		home, openErr := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if openErr != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("open own network namespace: %w", openErr)
			return
		}
		defer unix.Close(home)
		if err = unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("enter network namespace: %w", err)
			return
		}
		defer func() {
			// Leaving the goroutine locked ends the thread: nobody may ever
			// run on a thread that is stuck in the wrong namespace.
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = fn()
	}()
	return <-result
}

// Inum returns the inode number of the namespace that fd refers to, which is
// the number the kernel shows as net:[N] and keeps in struct net's ns.inum.
func Inum(fd int) (uint32, error) {
	var st unix.Stat_t
	var err error
	if fd == Current {
		err = unix.Stat("/proc/thread-self/ns/net", &st)
	} else {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		return 0, fmt.Errorf("stat network namespace: %w", err)
	}
	return uint32(st.Ino), nil
}

// OpenPID returns a descriptor of the network namespace of process pid.
func OpenPID(pid int) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
}
