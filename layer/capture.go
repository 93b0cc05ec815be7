package layer

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Capture copies the tree src into the new directory dst, which must not exist,
// while nothing changes src. prev, if not empty, is the snapshot of an earlier
// capture of the same tree, on the file system of dst: what has not changed
// since is taken from it. Nothing is synced; see Sync.
//
// Errors: ErrLimit, ErrChanged, fs.ErrExist for dst, the context's, and those
// of the file system. After an error dst does not exist. An unusable prev is no
// error: everything is copied, and Stats.PrevError says why.
//
// Who can say beforehand that a capture is coming uses Prepare: less is left to
// do while tasks are frozen.
func Capture(ctx context.Context, src, dst, prev string, limits Limits) (Stats, error) {
	d, err := Prepare(dst, prev, limits)
	if err != nil {
		return Stats{}, fmt.Errorf("capture %s: %w", src, err)
	}
	return d.Capture(ctx, src)
}

// capture is one run of Capture.
type capture struct {
	ctx    context.Context
	limits Limits
	stats  Stats

	dirfd      int // of the snapshot
	manifestFD int
	identityFD int
	pack       *packWriter
	old        []packInfo       // packs of prev, linked into dirfd
	live       map[uint32]int64 // bytes that are referred to, by pack

	dev    uint64 // of the tree
	trust  trust
	prev   *cursor
	before *identities // of prev

	body    []byte
	ids     identities
	leaders map[uint64]uint32 // inode to entry, of inodes with several names
	path    []string          // where the walk is, for errors
	scratch entry
	xattrs  xattrBuffer
	dirents [32 << 10]byte
}

func (c *capture) run(ctx context.Context, src string) error {
	c.ctx = ctx
	root, err := openRoot(src)
	if err != nil {
		return err
	}
	defer closeFD(root)
	var st unix.Statx_t
	if err := statAt(root, "", &st); err != nil {
		return err
	}
	c.dev = deviceOf(&st)
	if c.trust, err = newTrust(root); err != nil {
		return err
	}
	if c.before != nil && c.before.dev != c.dev {
		c.prev = nil
	}
	r, ord := c.findPrev(0, "")
	if err := c.dir(root, "", 0, &st, r, ord); err != nil {
		return err
	}
	return c.finish()
}

func (c *capture) findPrev(depth int, name string) (record, int) {
	if c.prev == nil {
		return nil, 0
	}
	return c.prev.find(depth, name)
}

// dir captures an open directory and what is in it. r is what prev has of that
// name, or nil.
func (c *capture) dir(fd int, name string, depth int, st *unix.Statx_t, r record, ord int) error {
	if depth >= maxDepth {
		return fmt.Errorf("%w: deeper than %d directories", ErrLimit, maxDepth)
	}
	if r != nil && r.kind() == kindDir && c.before.ids[ord].unchanged(r, st) {
		if err := c.keep(r, c.before.ids[ord]); err != nil {
			return err
		}
	} else if err := c.addOpen(fd, name, depth, kindDir, st); err != nil {
		return err
	}
	names, err := readNames(fd, c.dirents[:])
	if err != nil {
		return err
	}
	for _, name := range names {
		c.path = append(c.path, name)
		if err := c.child(fd, name, depth+1); err != nil {
			return err
		}
		c.path = c.path[:len(c.path)-1]
	}
	return nil
}

// child captures one name in an open directory.
func (c *capture) child(dirfd int, name string, depth int) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	var st unix.Statx_t
	if err := statAt(dirfd, name, &st); err != nil {
		return err
	}
	k := kindOf(st.Mode)
	r, ord := c.findPrev(depth, name)
	whiteout := k == kindChar && st.Rdev_major == 0 && st.Rdev_minor == 0
	switch {
	case k == 0:
		return fmt.Errorf("unknown file type %#o", st.Mode)
	case foreign(&st, c.dev):
		c.stats.Mounts++
		e := c.entryOf(name, depth, kindMount, &st)
		e.mode = st.Mode // with the type, to make a place to mount on
		return c.add(e, identity{})
	case k == kindDir:
		fd, err := openDir(dirfd, name)
		if err != nil {
			return err
		}
		defer closeFD(fd)
		return c.dir(fd, name, depth, &st, r, ord)
	case st.Nlink > 1 && !whiteout:
		if leader, ok := c.leaders[st.Ino]; ok {
			e := c.entryOf(name, depth, kindLink, &st)
			e.link = leader
			return c.add(e, c.ids.ids[leader])
		}
		c.leaders[st.Ino] = uint32(c.stats.Entries)
	}
	if r != nil && r.kind() == k && c.before.ids[ord].unchanged(r, &st) {
		return c.keep(r, c.before.ids[ord])
	}
	return c.changed(dirfd, name, depth, k, &st)
}

// changed captures what is not a directory and not in prev.
func (c *capture) changed(dirfd int, name string, depth int, k kind, st *unix.Statx_t) error {
	flags := unix.O_PATH
	if k == kindRegular {
		flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOATIME
	}
	fd, err := openAt(dirfd, name, flags, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	var opened unix.Statx_t
	if err := statAt(fd, "", &opened); err != nil {
		return err
	}
	if opened.Ino != st.Ino || opened.Mode != st.Mode {
		return ErrChanged
	}
	return c.addOpen(fd, name, depth, k, &opened)
}

// addOpen reads everything about an open file and adds its entry.
func (c *capture) addOpen(fd int, name string, depth int, k kind, st *unix.Statx_t) (err error) {
	e := c.entryOf(name, depth, k, st)
	e.xattrs, err = readXattrs(fd, k != kindDir && k != kindRegular, &c.xattrs)
	if err != nil {
		return err
	}
	trusted := c.trust.metadata(st)
	switch k {
	case kindSymlink:
		target, err := readLink(fd)
		if err != nil {
			return err
		}
		e.target = []byte(target)
	case kindRegular:
		e.size = int64(st.Size)
		if e.extents, err = c.contents(fd, st, e.extents); err != nil {
			return err
		}
		trusted = c.trust.contents(fd, st)
		c.stats.Copied++
	}
	return c.add(e, identityOf(st, trusted))
}

// entryOf returns the scratch entry, filled with what stat tells.
func (c *capture) entryOf(name string, depth int, k kind, st *unix.Statx_t) *entry {
	e := &c.scratch
	*e = entry{
		depth: depth, kind: k, flags: inodeFlags(st), mode: st.Mode & 07777,
		uid: st.Uid, gid: st.Gid, major: st.Rdev_major, minor: st.Rdev_minor,
		mtime: timestamp{st.Mtime.Sec, st.Mtime.Nsec}, atime: timestamp{st.Atime.Sec, st.Atime.Nsec},
		name: []byte(name), extents: e.extents[:0],
	}
	return e
}

// contents copies the data of an open regular file.
func (c *capture) contents(fd int, st *unix.Statx_t, extents []extent) ([]extent, error) {
	size := int64(st.Size)
	add := func(off, length int64) error {
		if c.stats.Bytes+length > c.limits.MaxBytes {
			return fmt.Errorf("%w: more than %d bytes", ErrLimit, c.limits.MaxBytes)
		}
		packOff, err := c.pack.copy(c.ctx, fd, off, length)
		if err != nil {
			return err
		}
		c.stats.Bytes += length
		c.stats.CopiedBytes += length
		c.live[c.pack.id] += length
		extents = append(extents, extent{off: off, length: length, pack: c.pack.id, packOff: packOff})
		return nil
	}
	var err error
	switch {
	case size == 0:
	case int64(st.Blocks)*512 >= size:
		err = add(0, size)
	default:
		err = dataRanges(fd, 0, size, add)
	}
	return extents, err
}

// keep takes over an entry from prev.
func (c *capture) keep(r record, id identity) error {
	for i := range int(r.extentCount()) {
		x := r.extent(i)
		c.live[x.pack] += x.length
		c.stats.Bytes += x.length
	}
	if c.stats.Bytes > c.limits.MaxBytes {
		return fmt.Errorf("%w: more than %d bytes", ErrLimit, c.limits.MaxBytes)
	}
	c.body = append(c.body, r...)
	return c.added(r.flags(), id)
}

func (c *capture) add(e *entry, id identity) error {
	c.body = appendEntry(c.body, e)
	return c.added(e.flags, id)
}

func (c *capture) added(flags uint8, id identity) error {
	c.stats.Entries++
	if flags != 0 {
		c.stats.Flagged++
	}
	c.ids.ids = append(c.ids.ids, id)
	if c.stats.Entries > c.limits.MaxEntries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, c.limits.MaxEntries)
	}
	if len(c.body) > maxManifest {
		return fmt.Errorf("%w: names and attributes take more than %d bytes", ErrLimit, maxManifest)
	}
	return nil
}

// finish writes the rest of the snapshot. Packs of prev that nothing refers to
// any more are dropped; a new one that stayed empty is left to Sync.
func (c *capture) finish() error {
	c.path = nil
	if err := c.pack.flush(); err != nil {
		return err
	}
	m := &manifest{boot: c.ids.boot, count: c.stats.Entries, body: c.body}
	for _, p := range c.old {
		p.live = c.live[p.id]
		if p.live > 0 {
			m.packs = append(m.packs, p)
		} else if err := unix.Unlinkat(c.dirfd, packName(p.id), 0); err != nil {
			return pathError("unlinkat", packName(p.id), err)
		}
	}
	if live := c.live[c.pack.id]; live > 0 {
		m.packs = append(m.packs, packInfo{id: c.pack.id, size: c.pack.size, live: live})
	}
	c.ids.dev = c.dev
	if err := writeFull(c.identityFD, c.ids.encode(), 0); err != nil {
		return err
	}
	if err := writeFull(c.manifestFD, m.encode(), 0); err != nil {
		return err
	}
	err := unix.Renameat(c.dirfd, manifestName+tempSuffix, c.dirfd, manifestName)
	return pathError("renameat", manifestName, err)
}
