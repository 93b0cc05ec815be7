package recovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// slotsDir is below the node's state directory. No namespace of containerd
	// begins with a dot.
	slotsDir = ".dump-slots"
	// slotAgain is between two attempts to get a slot.
	slotAgain = 20 * time.Millisecond
	// slotPatience bounds the wait for a slot.
	slotPatience = 10 * time.Second
)

// errNoSlot is returned while as many containers of the node are being dumped
// as the node file allows.
var errNoSlot = errors.New("max_concurrent_dumps: all slots of the node are taken")

// slots limit how many containers of a node are dumped at a time. Each slot is
// a file, and who holds a lock on it has the slot: the kernel takes it back from
// a shim that dies.
type slots struct {
	dir   string
	limit int // 0: none
}

func newSlots(stateDir string, limit int) *slots {
	return &slots{filepath.Join(stateDir, slotsDir), limit}
}

// try takes a slot without waiting.
//
// Errors: errNoSlot, and those of files.
func (s *slots) try() (release func(), err error) {
	if s.limit == 0 {
		return func() {}, nil
	}
	if err := mkdirPrivate(s.dir); err != nil {
		return nil, fmt.Errorf("slot for a dump: %w", err)
	}
	for _, i := range rand.Perm(s.limit) {
		f, err := os.OpenFile(filepath.Join(s.dir, strconv.Itoa(i)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("slot for a dump: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // which unlocks
		}
		_ = f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("slot for a dump: lock: %w", err)
		}
	}
	return nil, errNoSlot
}

// take waits for a slot, for at most slotPatience.
//
// Errors: those of try; the context's.
func (s *slots) take(ctx context.Context) (release func(), err error) {
	deadline := time.Now().Add(slotPatience)
	for {
		release, err := s.try()
		if !errors.Is(err, errNoSlot) {
			return release, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w for %s", err, slotPatience)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(slotAgain):
		}
	}
}
