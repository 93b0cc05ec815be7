package recovery

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// premisesEvery is the time between two looks at the premises.
const premisesEvery = time.Second

// premises are the directories that a recovery reads. What is written to one that
// somebody has removed or replaced goes nowhere, without an error.
type premises struct {
	dir   string // of the container's state
	known map[string]os.FileInfo
	due   time.Time
}

// look says, some time after it has happened, that one of them is not there any more.
// After forget it takes those that it finds.
func (p *premises) look(now time.Time) error {
	if now.Before(p.due) {
		return nil
	}
	p.due = now.Add(premisesEvery)
	known := map[string]os.FileInfo{}
	for _, name := range []string{journalName, checkpointsName} {
		path := filepath.Join(p.dir, name)
		fi, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("somebody has removed %s", path)
		case err != nil:
			return nil // whether it can be written to is for others to find out
		case p.known != nil && !os.SameFile(fi, p.known[name]):
			return fmt.Errorf("somebody has put another %s in the place of the one in use", path)
		}
		known[name] = fi
	}
	p.known = known
	return nil
}

// forget is for when they are made anew.
func (p *premises) forget() { p.known = nil }
