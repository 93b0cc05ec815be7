package recovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/sockdiag"
	"github.com/crsc-io/crsc/shim/lifecycle"
	"github.com/crsc-io/crsc/status"
)

// Cut is what a checkpoint knows of the connections. It is stored in cut.json.
type Cut struct {
	Version int           `json:"version"`
	Table   *replay.Table `json:"table"`
	// Sockets of the application in the images, by connection number.
	Sockets map[uint32]criu.TCPSocket `json:"sockets"`
	// Foreign are connections in the images that do not go through the proxy.
	Foreign []sockdiag.Tuple `json:"foreign,omitempty"`
}

const cutVersion = 1

// checkpoint is one complete checkpoint.
type checkpoint struct {
	seq uint64
	dir string
	at  time.Time
	cut Cut
	// info describes it to people, once it is complete.
	info *status.Checkpoint
	// unjournaled: the journal failed before the checkpoint was complete.
	unjournaled bool
	mark        *lifecycle.StdioMark // where standard output stood; this shim only
	// inMemory is where CRIU's images are, if not in dir.
	inMemory atomic.Pointer[string]
	// ceiling bounds what it brings, if it is another container's; nil: it is not.
	ceiling  *criu.Ceiling
	reserved func() // ends the reservation of memory; nil: there is none
	moment
}

// images is where CRIU's images are. It changes with store.toDisk.
func (c *checkpoint) images() string {
	if dir := c.inMemory.Load(); dir != nil {
		return *dir
	}
	return c.imagesOnDisk()
}

func (c *checkpoint) imagesOnDisk() string { return filepath.Join(c.dir, "images") }

// remove removes all of a checkpoint.
func (c *checkpoint) remove() error {
	c.unreserve()
	err := os.RemoveAll(c.dir)
	if dir := c.inMemory.Load(); dir != nil {
		err = errors.Join(err, os.RemoveAll(*dir))
	}
	return err
}

func (c *checkpoint) cutFile() string { return filepath.Join(c.dir, "cut.json") }

// store keeps the checkpoints of one container, oldest first.
type store struct {
	dir  string // <state>/checkpoints
	sync bool   // the host's crash is to be survived
	// memory takes CRIU's images; nil: the disk does.
	memory *memory
	list   []*checkpoint
	// onMoved is told of a checkpoint whose images are on disk now; nil: nobody is.
	onMoved func(*checkpoint)
}

const staging = ".tmp-"

// openStore makes the directory, and removes what an earlier life left: its
// processes, connections and pins are gone.
func openStore(dir string, sync bool) (*store, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("checkpoint store: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("checkpoint store: %w", err)
	}
	return &store{dir: dir, sync: sync}, nil
}

// stage makes the directory of a checkpoint that does not count yet.
func (s *store) stage(seq uint64) (*checkpoint, error) {
	c := &checkpoint{seq: seq, dir: filepath.Join(s.dir, staging+strconv.FormatUint(seq, 10))}
	if err := os.RemoveAll(c.dir); err != nil {
		return nil, fmt.Errorf("stage checkpoint %d: %w", seq, err)
	}
	if err := os.MkdirAll(c.images(), 0o700); err != nil {
		return nil, fmt.Errorf("stage checkpoint %d: %w", seq, err)
	}
	return c, nil
}

// discard removes a staged checkpoint.
func (s *store) discard(c *checkpoint) error { return c.remove() }

// restage empties a staged checkpoint, with its place on disk, for another
// attempt.
func (s *store) restage(c *checkpoint) error {
	if err := c.remove(); err != nil {
		return err
	}
	c.inMemory.Store(nil)
	return os.MkdirAll(c.images(), 0o700)
}

// commit makes a staged checkpoint count: cut, sync, rename.
func (s *store) commit(c *checkpoint) error {
	b, err := json.Marshal(c.cut)
	if err != nil {
		return fmt.Errorf("commit checkpoint %d: %w", c.seq, err)
	}
	if err := os.WriteFile(c.cutFile(), b, 0o600); err != nil {
		return fmt.Errorf("commit checkpoint %d: %w", c.seq, err)
	}
	if s.sync {
		if err := syncTree(c.dir); err != nil {
			return fmt.Errorf("commit checkpoint %d: %w", c.seq, err)
		}
	}
	final := filepath.Join(s.dir, strconv.FormatUint(c.seq, 10))
	if err := os.Rename(c.dir, final); err != nil {
		return fmt.Errorf("commit checkpoint %d: %w", c.seq, err)
	}
	if s.sync {
		if err := syncPath(s.dir); err != nil {
			return fmt.Errorf("commit checkpoint %d: %w", c.seq, err)
		}
	}
	c.dir, c.at = final, time.Now()
	s.list = append(s.list, c)
	return nil
}

// last is the newest checkpoint, or nil.
func (s *store) last() *checkpoint {
	if len(s.list) == 0 {
		return nil
	}
	return s.list[len(s.list)-1]
}

// kept describes the checkpoints, the newest first.
func (s *store) kept() []status.Checkpoint {
	var out []status.Checkpoint
	for _, c := range slices.Backward(s.list) {
		if c.info != nil {
			out = append(out, *c.info)
		}
	}
	return out
}

// prune keeps the newest n checkpoints. It returns the journal position from
// which on the kept ones need the journal.
func (s *store) prune(n int) (journal.Position, error) {
	var errs []error
	for len(s.list) > n {
		c := s.list[0]
		if err := errors.Join(s.retire(c), c.remove()); err != nil {
			errs = append(errs, err)
			break
		}
		c.mark.Release()
		s.list = s.list[1:]
	}
	if len(s.list) == 0 {
		return 0, errors.Join(errs...)
	}
	first := slices.MinFunc(s.list, func(a, b *checkpoint) int {
		if a.cut.Table.ScanFrom < b.cut.Table.ScanFrom {
			return -1
		}
		return 1
	})
	return first.cut.Table.ScanFrom, errors.Join(errs...)
}

// drop forgets all checkpoints, after a start from the beginning.
func (s *store) drop() error {
	_, err := s.prune(0)
	if s.memory != nil {
		err = errors.Join(err, s.memory.spare.drop())
	}
	return err
}

// syncTree makes a directory tree durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() || d.IsDir() {
			return syncPath(path)
		}
		return nil
	})
}

func syncPath(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		return &os.PathError{Op: "fsync", Path: path, Err: err}
	}
	return nil
}

// stateDir is where a container's state lives. Namespace and ID come from
// containerd, which restricts them; a path made of anything else is refused.
func stateDir(root, namespace, id string) (string, error) {
	for _, s := range []string{namespace, id} {
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\x00") {
			return "", fmt.Errorf("%q can't name a state directory", s)
		}
	}
	return filepath.Join(root, namespace, id), nil
}

func mkdirPrivate(dir string) error { return os.MkdirAll(dir, 0o700) }
