package recovery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// errDiskSilent is for captures that were given up.
var errDiskSilent = errors.New("the disk does not answer")

// capturing bounds the captures of a container's files, for which it is frozen. Nothing
// interrupts a system call that waits for a disk: such a capture goes on by itself, in a
// running container, and there is no other one until it has ended.
type capturing struct {
	mu   sync.Mutex
	left bool // a capture was given up, and has not ended
}

// within runs capture. When limit is over its context ends, and it is given up:
// whatever it works with then belongs to after, which runs when it has ended.
//
// Errors: errDiskSilent if it was given up, else capture's.
func (c *capturing) within(ctx context.Context, limit time.Duration, start func(func()), capture func(context.Context) error, after func()) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	ended, givenUp := false, false
	start(func() {
		defer cancel()
		err := capture(ctx)
		c.mu.Lock()
		ended = true
		mine := !givenUp
		c.mu.Unlock()
		if mine {
			done <- err
			return
		}
		after()
		c.mu.Lock()
		c.left = false
		c.mu.Unlock()
	})
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
	}
	c.mu.Lock()
	givenUp = !ended
	c.left = c.left || givenUp
	c.mu.Unlock()
	if !givenUp {
		return <-done
	}
	cancel()
	return fmt.Errorf("the files were not captured within %v: %w", limit, errDiskSilent)
}

// pending says that a capture which was given up has not ended.
func (c *capturing) pending() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left {
		return fmt.Errorf("the files that an earlier checkpoint began to capture are not captured yet: %w", errDiskSilent)
	}
	return nil
}
