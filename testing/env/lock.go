package env

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lock takes the environment's lock file, which lies beside Dir so that it
// outlives it, and removes it again at the end. Whoever waited on a file that
// was removed meanwhile starts over with the new one.
func (e *Env) lock() (unlock func(), err error) {
	name := e.Dir + ".lock"
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f, unix.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		held, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if now, err := os.Stat(name); err == nil && os.SameFile(held, now) {
			return func() { os.Remove(name); f.Close() }, nil
		}
		f.Close()
	}
}

// use registers a user of the environment until release is called, or the
// process ends. It must be called under the lock.
func (e *Env) useLocked() (release func(), err error) {
	f, err := os.OpenFile(e.usersFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_SH); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// unusedLocked reports whether nobody is registered.
func (e *Env) unusedLocked() bool {
	f, err := os.OpenFile(e.usersFile(), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return false
	}
	defer f.Close()
	return flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil
}

func (e *Env) usersFile() string { return filepath.Join(e.Dir, "users") }

// flock repeats when a signal interrupts it: the Go runtime preempts with them.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
