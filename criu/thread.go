package criu

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs fn on an operating system thread of its own, which is thrown
// away afterwards, so that fn may change the thread's namespaces. The process's
// main thread is never used: it cannot be thrown away, and /proc/self is it.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Held here, the main thread cannot be given to the goroutine that
			// the nested call starts.
			done <- onThread(fn)
			runtime.UnlockOSThread()
			return
		}
		// Never unlocked: the thread ends with the goroutine.
		done <- fn()
	}()
	return <-done
}

// enter moves the calling thread into the namespaces bound or linked at paths.
func enter(paths []string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("enter namespace: %w", err)
		}
		err = unix.Setns(int(f.Fd()), 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("enter namespace %s: %w", path, err)
		}
	}
	return nil
}

// inode returns the inode number of the file at path, following links: for a
// namespace the number that identifies it.
func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// sameFile reports whether two paths lead to one file, or namespace.
func sameFile(a, b string) (bool, error) {
	i, err := inode(a)
	if err != nil {
		return false, err
	}
	j, err := inode(b)
	return i == j, err
}
