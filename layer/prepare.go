package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Draft is a snapshot directory that waits for its tree. It is used once, by
// one goroutine.
type Draft struct {
	dst string
	c   *capture // nil when it has been used
}

// Prepare does the part of Capture for which nothing needs to be frozen: it
// makes dst and its files, links the packs of prev and reads its manifest. The
// Draft must be captured or discarded. The arguments, and the errors, are those
// of Capture.
func Prepare(dst, prev string, limits Limits) (*Draft, error) {
	if err := limits.defaultsAndValidate(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dst, 0o700); err != nil {
		return nil, fmt.Errorf("prepare snapshot: %w", err)
	}
	c := &capture{
		limits: limits, dirfd: -1, manifestFD: -1, identityFD: -1,
		leaders: map[uint64]uint32{}, live: map[uint32]int64{},
	}
	d := &Draft{dst: dst, c: c}
	if err := c.prepare(dst, prev); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare snapshot %s: %w", dst, err), d.Discard())
	}
	return d, nil
}

// Capture is the function of that name, for a tree that nothing changes until
// it returns.
func (d *Draft) Capture(ctx context.Context, src string) (Stats, error) {
	if d.c == nil {
		return Stats{}, fmt.Errorf("capture %s: %w", src, os.ErrClosed)
	}
	if err := d.c.run(ctx, src); err != nil {
		err = fmt.Errorf("capture %s: /%s: %w", src, strings.Join(d.c.path, "/"), err)
		return Stats{}, errors.Join(err, d.Discard())
	}
	d.c.close()
	stats := d.c.stats
	d.c = nil
	return stats, nil
}

// Discard removes the directory, unless the tree has been captured.
func (d *Draft) Discard() error {
	if d.c == nil {
		return nil
	}
	d.c.close()
	d.c = nil
	return os.RemoveAll(d.dst)
}

func (c *capture) prepare(dst, prev string) (err error) {
	if c.dirfd, err = openPrivate(dst); err != nil {
		return err
	}
	if c.ids.boot, err = bootID(); err != nil {
		return err
	}
	c.pack = newPackWriter(c.dirfd, 1)
	if prev != "" {
		if err := c.usePrev(prev); err != nil {
			return err
		}
	}
	c.pack.buf = make([]byte, packBuffer)
	clear(c.pack.buf) // has the pages allocated now
	c.pack.buf = c.pack.buf[:0]
	if err := c.pack.create(); err != nil {
		return err
	}
	if c.identityFD, err = createAt(c.dirfd, identityName); err != nil {
		return err
	}
	c.manifestFD, err = createAt(c.dirfd, manifestName+tempSuffix)
	return err
}

// usePrev links the packs of the previous snapshot, as long as it is of use.
func (c *capture) usePrev(prev string) error {
	s := &snapshot{dirfd: -1}
	defer s.close()
	var err error
	if s.dirfd, err = openPrivate(prev); err == nil {
		err = s.load(func() error {
			if err := c.dropPacks(); err != nil { // of an earlier attempt
				return err
			}
			return s.linkPacks(c.dirfd)
		})
	}
	if err == nil && len(s.m.packs) >= maxPacks {
		err = fmt.Errorf("%w: %d packs, which Sync has not merged", ErrLimit, len(s.m.packs))
	}
	if err != nil {
		c.stats.PrevError = err
		return c.dropPacks()
	}
	c.prev, c.before, c.old = newCursor(s.m), s.ids, s.m.packs
	if n := len(c.old); n > 0 {
		c.pack.id = c.old[n-1].id + 1
	}
	c.body = make([]byte, 0, len(s.m.body)*5/4)
	c.ids.ids = make([]identity, 0, s.m.count*5/4)
	return nil
}

// dropPacks removes what a linkPacks that failed left behind.
func (c *capture) dropPacks() error {
	fd, err := openDir(c.dirfd, ".")
	if err != nil {
		return err
	}
	defer closeFD(fd)
	names, err := readNames(fd, c.dirents[:])
	for _, name := range names {
		if err == nil {
			err = pathError("unlinkat", name, unix.Unlinkat(fd, name, 0))
		}
	}
	return err
}

func (c *capture) close() {
	if c.pack != nil {
		c.pack.close()
	}
	for _, fd := range []int{c.dirfd, c.manifestFD, c.identityFD} {
		if fd >= 0 {
			closeFD(fd)
		}
	}
}
