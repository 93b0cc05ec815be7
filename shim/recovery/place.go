package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/status"
)

// openMemory gives the checkpoints their place in memory. Without it they are
// on disk, and frozen for longer.
func (g *guard) openMemory() {
	if g.cfg.CheckpointMemory == config.Off {
		return
	}
	m, err := openMemory(g.memoryDir(), g.cfg.CheckpointMemory, nodeMemory{g.cfg.StateDir, g.cfg.NodeCheckpointMemory})
	if err != nil {
		g.log.WithError(err).Warn("checkpoints are written to disk")
		return
	}
	g.store.memory = m
}

// memoryUse is nil without a place in memory, or if the kernel does not tell.
func (g *guard) memoryUse() *status.Memory {
	m := g.store.memory
	if m == nil {
		return nil
	}
	u, err := m.node.used(m.dir)
	if err != nil {
		g.log.WithError(err).Debug("memory of checkpoints is not counted")
		return nil
	}
	return &status.Memory{Bytes: u.own, MaxBytes: g.cfg.CheckpointMemory, NodeBytes: u.own + u.others, NodeMaxBytes: m.node.limit}
}

func (g *guard) memoryDir() string { return filepath.Join(g.dir, memoryName) }

// place decides where the images of a staged checkpoint are written.
func (g *guard) place(cp *checkpoint, info *status.Checkpoint) error {
	info.Place, info.PlaceReason = placeDisk, ""
	if g.store.memory == nil {
		return nil
	}
	if !g.patchedCRIU || g.preDumps() { // nothing would be reserved
		if err := g.store.memory.spare.drop(); err != nil {
			return err
		}
	}
	err := g.store.intoMemory(cp, g.needs())
	if errors.Is(err, errNoMemory) {
		info.PlaceReason = err.Error()
		return nil
	}
	info.Place = placeMemory
	return err
}

// The values of status.Checkpoint.Place.
const (
	placeMemory = "memory"
	placeDisk   = "disk"
)

// needs estimates the size of a checkpoint's images, rather too high.
func (g *guard) needs() int64 {
	n := g.usage.resident()
	if g.preDumps() {
		n *= 2 // while the pre-dumps are joined
	}
	return n + n/8 + imageOverhead
}

// preDumpFrom is the memory from which on a pre-dump pays, in bytes: less is
// copied in about the time that the rounds would stop the container.
const preDumpFrom = 64 << 20

// preDumps decides whether memory is copied ahead of the freeze.
func (g *guard) preDumps() bool { return g.tracksMemory && g.usage.resident() >= preDumpFrom }

// reserves decides whether memory for the images is taken ahead of the freeze.
func (g *guard) reserves(info *status.Checkpoint) bool {
	return g.patchedCRIU && info.Place == placeMemory && !g.preDumps()
}

// previousImages is the directory of those of the last checkpoint, "" if there is
// none.
func (g *guard) previousImages() string {
	if last := g.store.last(); last != nil {
		return last.images()
	}
	return ""
}

// overflowed reports whether a dump into memory failed for lack of it.
func (g *guard) overflowed(cp *checkpoint, err error) bool {
	if err == nil || cp.inMemory.Load() == nil {
		return false
	}
	_, full := g.store.memory.roomHere(imageOverhead / 2)
	return errors.Is(full, errNoMemory)
}

// intoMemory makes memory the place for the images of a staged checkpoint, if
// need bytes have room there. They are reserved until c.unreserve. The directory
// has the memory of those that were removed last.
//
// Errors: errNoMemory; the checkpoint's place is on disk then.
func (s *store) intoMemory(c *checkpoint, need int64) error {
	more := max(0, need-s.memory.spare.size())
	if _, err := s.memory.roomHere(more); err != nil {
		return err
	}
	release, err := s.memory.node.reserve(s.memory.dir, more)
	if err != nil {
		return err
	}
	dir := s.memory.images(c.seq)
	if err := errors.Join(os.RemoveAll(dir), s.memory.spare.give(dir), os.Remove(c.imagesOnDisk())); err != nil {
		release()
		return err
	}
	c.inMemory.Store(&dir)
	c.reserved = release
	return nil
}

// unreserve ends a reservation: what the checkpoint takes has been written.
func (c *checkpoint) unreserve() {
	if c.reserved != nil {
		c.reserved()
	}
	c.reserved = nil
}

// makeRoom moves images to disk, oldest first, until need bytes have room in
// memory. It moves nothing if they will never have.
func (s *store) makeRoom(ctx context.Context, need int64) error {
	if s.memory == nil {
		return nil
	}
	var err error
	for _, c := range s.list {
		var ever bool
		ever, err = s.memory.room(need)
		if ever && errors.Is(err, errNoMemory) {
			_, err = s.memory.room(max(0, need-s.memory.spare.size()))
		}
		if err == nil || !ever || !errors.Is(err, errNoMemory) {
			break
		}
		if err = s.toDisk(ctx, c); err != nil {
			break
		}
	}
	return errors.Join(err, s.economize(need))
}

// economize gives the spare memory back unless the next checkpoint, which needs
// need bytes, finds room with it, and others on the node would without.
func (s *store) economize(need int64) error {
	_, err := s.memory.roomHere(max(0, need-s.memory.spare.size()))
	if err == nil {
		_, err = s.memory.node.room(s.memory.dir, need)
	}
	if errors.Is(err, errNoMemory) {
		return s.memory.spare.drop()
	}
	return err
}

// retire keeps the memory of a checkpoint that is removed.
func (s *store) retire(c *checkpoint) error {
	if dir := c.inMemory.Load(); dir != nil && s.memory != nil {
		return s.memory.spare.keep(*dir)
	}
	return nil
}

// toDisk moves a checkpoint's images to disk; their memory is spare then. After an
// error they are where they were.
func (s *store) toDisk(ctx context.Context, c *checkpoint) error {
	from := c.inMemory.Load()
	if from == nil {
		return nil
	}
	tmp := c.imagesOnDisk() + ".tmp"
	err := os.RemoveAll(tmp)
	if err == nil {
		err = copyFiles(ctx, *from, tmp)
	}
	if err == nil && s.sync {
		err = syncTree(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, c.imagesOnDisk())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("move checkpoint %d to disk: %w", c.seq, err), os.RemoveAll(tmp))
	}
	c.inMemory.Store(nil)
	if s.onMoved != nil {
		s.onMoved(c) // memory that somebody has open is not to be written to
	}
	return s.memory.spare.keep(*from)
}

// copyFiles copies the regular files of a directory into a new one.
func copyFiles(ctx context.Context, from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	list, err := os.ReadDir(from)
	for _, e := range list {
		if err == nil && e.Type().IsRegular() {
			err = copyFile(ctx, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		}
	}
	return err
}

// copyChunk is copied between two looks at the context, in bytes.
const copyChunk = 4 << 20

func copyFile(ctx context.Context, from, to string) (err error) {
	in, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, copyChunk); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}
