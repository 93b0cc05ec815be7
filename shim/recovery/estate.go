package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy"
	"github.com/crsc-io/crsc/netproxy/redirect"
	"github.com/crsc-io/crsc/shim/lifecycle"
)

// connectionsKept is how long the connections of a container that has crashed too
// often wait for the next one in the pod. The kubelet's delay is 10 s, and doubles.
const connectionsKept = time.Minute

// maxInRow is how many containers may resume one after the other, if each of
// them exceeds its budget within the budget's window: what they resume is sick.
const maxInRow = 3

// estate is what a container of a pod that has crashed too often leaves to the one
// that takes its place: connections, journal and checkpoints.
type estate struct {
	from inheritance
	log  *logrus.Entry
	row  int // how many containers will have resumed in a row, with the next

	// What the checkpoints and the journal mean.
	list      []*checkpoint
	written   map[uint64][2]lifecycle.Swallow // to stdout and stderr since a checkpoint; 0 is the start
	seq       uint64
	rise      rise
	fromStart bool
	origin    journal.Position
	options   journal.Options
	netns     *os.File
	kept      *redirect.Kept // nil: no address is kept for it

	mu      sync.Mutex // guards all below; held while the estate moves or ends
	dir     string     // of journal and checkpoints
	tenant  *tenant
	journal *journal.Journal // nil: closed
	proxy   *netproxy.Proxy  // nil: the connections have been reset
	reset   *time.Timer
}

// whole says that the journal reaches back to the start.
func (l *estate) whole() bool { return l.fromStart && l.journal.Start() == l.origin }

// keepConnections resets the connections if nobody comes.
func (l *estate) keepConnections(limit time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reset = time.AfterFunc(limit, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.proxy == nil {
			return
		}
		l.log.Warnf("no container has taken the place of the one that ended for %v; its connections are reset, checkpoints and journal are kept", limit)
		if err := l.proxy.Close(); err != nil {
			l.log.WithError(err).Warn("close proxy")
		}
		l.proxy = nil
	})
}

// relocate moves journal and checkpoints to another directory, which must not
// have any. After an error they are of no use.
func (l *estate) relocate(ctx context.Context, dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	move := func(j *journal.Journal) (*journal.Journal, error) {
		l.journal = nil
		if err := j.Close(); err != nil {
			return nil, err
		}
		o := l.options
		o.Dir = filepath.Join(dir, journalName)
		if err := os.Rename(filepath.Join(l.dir, journalName), o.Dir); err != nil {
			return nil, err
		}
		var err error
		l.journal, err = journal.Open(o)
		return l.journal, err
	}
	var err error
	if l.proxy != nil {
		err = l.proxy.SwapJournal(ctx, move)
	} else {
		_, err = move(l.journal)
	}
	if err != nil {
		return fmt.Errorf("move the journal: %w", err)
	}
	to := filepath.Join(dir, checkpointsName)
	if err := os.Rename(filepath.Join(l.dir, checkpointsName), to); err != nil {
		return fmt.Errorf("move the checkpoints: %w", err)
	}
	for _, cp := range l.list {
		cp.dir = filepath.Join(to, strconv.FormatUint(cp.seq, 10))
	}
	l.dir = dir
	return nil
}

// end resets the connections and removes everything. nil is nothing.
func (l *estate) end() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reset != nil {
		l.reset.Stop()
	}
	var errs []error
	if l.proxy != nil {
		errs = append(errs, l.proxy.Close())
		l.proxy = nil
	}
	if l.journal != nil {
		errs = append(errs, l.journal.Close())
		l.journal = nil
	}
	if l.kept != nil {
		errs = append(errs, l.kept.Close())
		l.kept = nil
	}
	errs = append(errs, l.netns.Close(), os.RemoveAll(filepath.Join(l.dir, journalName)),
		os.RemoveAll(filepath.Join(l.dir, checkpointsName)))
	removeEmpty(l.dir)
	return errors.Join(errs...)
}

// removeEmpty removes a directory and those above it, as far as nothing else is
// there, up to the pod's.
func removeEmpty(dir string) {
	for range 3 {
		if os.Remove(dir) != nil {
			return
		}
		dir = filepath.Dir(dir)
	}
}
