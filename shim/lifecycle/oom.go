package lifecycle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/internal/cgroups"
)

// oomWatch tells when the kernel found a cgroup out of memory.
//
// It must be closed before the cgroup is removed: on cgroup v1 the removal
// signals the same descriptor, and the cgroup that a restore makes under the
// old name would let it pass for an OOM. (This is why containerd's pkg/oom,
// which never closes, is not used.)
type oomWatch struct {
	file   *os.File // eventfd (v1) or inotify (v2), non-blocking
	notify func()
	// kills reads the number of OOM kills; nil if each wake-up is one OOM, as
	// long as the cgroup is not gone.
	kills func() (uint64, error)
	gone  func() bool
	done  chan struct{}

	mu   sync.Mutex // guards the fields below and reading from file
	last uint64     // value of kills at the last notice
	at   time.Time  // of the last OOM, zero without one
}

// watchOOM calls notify, from a goroutine of its own, for each OOM.
func (g *cgroup) watchOOM(notify func()) (*oomWatch, error) {
	w := &oomWatch{notify: notify, gone: g.gone, done: make(chan struct{})}
	var fd int
	if g.v1 != nil {
		efd, err := g.v1.OOMEventFD()
		if err != nil {
			return nil, fmt.Errorf("watch for OOM: %w", err)
		}
		fd = int(efd)
	} else {
		ifd, _, err := g.v2.MemoryEventFD()
		if err != nil {
			return nil, fmt.Errorf("watch for OOM: %w", err)
		}
		fd = ifd
		events := filepath.Join(cgroups.Root, g.path, "memory.events")
		w.kills = func() (uint64, error) { return readOOMKills(events) }
		if w.last, err = w.kills(); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("watch for OOM: %w", err)
		}
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch for OOM: %w", err)
	}
	w.file = os.NewFile(uintptr(fd), "oom events")
	go w.run()
	return w, nil
}

// readOOMKills returns the oom_kill counter of a memory.events file.
func readOOMKills(path string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if n, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			return strconv.ParseUint(string(bytes.TrimSpace(n)), 10, 64)
		}
	}
	return 0, errors.New(path + ": no oom_kill")
}

func (w *oomWatch) run() {
	defer close(w.done)
	conn, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	for err == nil {
		err = conn.Read(func(fd uintptr) bool { return w.take(int(fd)) })
	}
}

// take reads one notice, if there is one, and passes it on.
func (w *oomWatch) take(fd int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	var buf [4096]byte
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, buf[:]) })
	if n <= 0 || err != nil {
		return err != unix.EAGAIN
	}
	if w.kills != nil {
		kills, err := w.kills()
		if err != nil || kills <= w.last {
			return true
		}
		w.last = kills
	} else if w.gone() {
		return true
	}
	w.at = time.Now()
	w.notify()
	return true
}

// lastOOM returns when the last OOM was noticed, zero if there was none. It
// takes a notice that was not passed on yet into account. It is nil-safe.
func (w *oomWatch) lastOOM() time.Time {
	if w == nil {
		return time.Time{}
	}
	if conn, err := w.file.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { w.take(int(fd)) })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

// close passes on what came until now and ends the watch. It is nil-safe and
// may be called twice.
func (w *oomWatch) close() {
	if w == nil {
		return
	}
	w.lastOOM()
	_ = closeFile(w.file)
	<-w.done
}
