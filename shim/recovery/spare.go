package recovery

import (
	"errors"
	"os"
	"sync"
	"time"

	"github.com/crsc-io/crsc/criu"
)

const (
	// spareFor is how long the memory of a removed checkpoint waits for the next one at
	// least; if checkpoints follow one another within spareMost, twice as long as
	// between the last two.
	spareFor  = 10 * time.Second
	spareMost = 90 * time.Second
)

// spare is the memory of the images that were removed last, for those of the next
// checkpoint. Memory that is given back has to be cleared when it is taken again,
// and a virtual machine may have to get it from its host, which takes a hundred
// times as long.
type spare struct {
	dir   string
	mu    sync.Mutex // guards everything below, and dir
	bytes int64
	kept  time.Time // when something was kept last
	// between is how far apart checkpoints are that keep something.
	between time.Duration
	forget  *time.Timer
}

// keep takes the directory images over, in place of what it had.
func (s *spare) keep(images string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.dropLocked(); err != nil {
		return err
	}
	// From here on nobody finds the files by their names: a link to one of them
	// was made before, and is seen.
	err := os.Rename(images, s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		s.bytes, err = criu.KeepPages(s.dir)
	}
	if err != nil || s.bytes == 0 {
		return errors.Join(err, s.dropLocked())
	}
	s.forget = time.AfterFunc(s.patienceLocked(time.Now()), func() { _ = s.drop() }) // again by the next keep
	return nil
}

// patienceLocked is how long to wait for the next checkpoint, now that memory is kept.
func (s *spare) patienceLocked(now time.Time) time.Duration {
	// One checkpoint may keep that of two.
	if between := now.Sub(s.kept); between >= time.Second {
		s.between = between
	}
	s.kept = now
	if s.between > spareMost {
		return spareFor
	}
	return max(spareFor, 2*s.between)
}

// size is how much there is, in bytes.
func (s *spare) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// give makes what there is the directory images. That is empty if there is
// nothing.
func (s *spare) give(images string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes == 0 {
		return os.Mkdir(images, 0o700)
	}
	s.forgotLocked()
	return os.Rename(s.dir, images)
}

// drop gives the memory back.
func (s *spare) drop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropLocked()
}

func (s *spare) dropLocked() error {
	s.forgotLocked()
	return os.RemoveAll(s.dir)
}

func (s *spare) forgotLocked() {
	s.bytes = 0
	if s.forget != nil {
		s.forget.Stop()
		s.forget = nil
	}
}
