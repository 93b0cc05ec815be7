package layer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Rollback makes the tree dir what it was when the snapshot was captured. What
// did not change is not touched. Nobody else may use dir meanwhile; an
// overlayfs above it is not mounted. The snapshot serves again afterwards, and
// as prev of the next Capture.
//
// After an error, or a crash, dir is somewhere between; running Rollback again
// finishes the work. Errors: ErrNoSnapshot, ErrUnsafeDir, ErrCorrupt,
// ErrUnsupportedVersion, ErrNotDurable (these before anything was touched), the
// context's, and those of the file system.
func Rollback(ctx context.Context, snapshot, dir string) (Stats, error) {
	return RollbackAs(ctx, snapshot, dir, nil)
}

// RollbackAs is Rollback into a tree of which the users are others.
//
// Errors: as Rollback, and ErrOwner.
func RollbackAs(ctx context.Context, snapshot, dir string, owners *Owners) (Stats, error) {
	r := &rollback{ctx: ctx, owners: owners}
	if err := r.run(snapshot, dir); err != nil {
		return r.stats, fmt.Errorf("roll back %s: %w", dir, err)
	}
	return r.stats, nil
}

// Same reports whether dir is exactly what the snapshot holds. It changes
// nothing. It is quick unless identities can't be trusted (see the package's
// invariants): then it reads and compares bytes.
func Same(snapshot, dir string) (bool, error) {
	r := &rollback{ctx: context.Background(), dry: true}
	err := r.run(snapshot, dir)
	if errors.Is(err, errDiffers) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("compare %s: %w", dir, err)
	}
	return true, nil
}

// rollback is one run of Rollback, or of Same.
type rollback struct {
	ctx    context.Context
	dry    bool // stop at the first difference
	owners *Owners
	stats  Stats

	snap   *snapshot
	index  *index
	root   int // descriptor of the tree
	dev    uint64
	trust  trust
	coarse bool       // the clock has to tick before the new identities hold
	after  identities // of the tree, as far as it has been put back

	names   []string // where the walk is, for errors
	xattrs  xattrBuffer
	dirents [32 << 10]byte
	have    []byte // to compare contents
	want    []byte
	noCFR   bool
}

// frame is a directory that is being put back.
type frame struct {
	fd, ord int
	made    bool // it is a new one
	touched bool // a name in it was made or removed
	locked  bool // it may have to lose flags before that can be done
}

func (r *rollback) run(snapshot, dir string) (err error) {
	if r.snap, err = openSnapshot(snapshot); err != nil {
		return err
	}
	defer r.snap.close()
	if r.root, err = openRoot(dir); err != nil {
		return err
	}
	defer closeFD(r.root)
	var st unix.Statx_t
	if err := statAt(r.root, "", &st); err != nil {
		return err
	}
	r.dev = deviceOf(&st)
	if r.trust, err = newTrust(r.root); err != nil {
		return err
	}
	r.coarse, r.trust.fine = !r.trust.fine, true // record waits instead
	if r.snap.ids.dev != r.dev || r.owners != nil {
		r.snap.ids = &identities{ids: make([]identity, r.snap.m.count)}
	}
	r.index = newIndex(r.snap.m)
	r.after.ids = make([]identity, r.snap.m.count)
	back := func() error { return r.dir(&frame{fd: r.root}, &st) }
	if r.dry {
		err = back()
	} else {
		// Whoever the root belongs to has a number there.
		err = asOwner(st.Uid, st.Gid, back)
	}
	if err != nil {
		return fmt.Errorf("/%s: %w", strings.Join(r.names, "/"), err)
	}
	if r.dry {
		return nil
	}
	return r.record()
}

// record saves the identities that the tree now has, so that the next Capture,
// Same or Rollback sees at a glance what is as it was.
func (r *rollback) record() (err error) {
	for ord := range r.after.ids {
		if rec := r.index.record(ord); rec.kind() == kindLink {
			r.after.ids[ord] = r.after.ids[rec.link()]
		}
	}
	if slices.Equal(r.after.ids, r.snap.ids.ids) {
		return nil
	}
	if r.coarse {
		if err := r.trust.settle(r.after.ids); err != nil {
			return err
		}
	}
	if r.after.boot, err = bootID(); err != nil {
		return err
	}
	r.after.dev = r.dev
	return replaceFileAt(r.snap.dirfd, identityName, r.after.encode())
}

// decode reads an entry with the owners that it has in the tree. If it is the
// tree's root, st tells of that.
func (r *rollback) decode(rec record, e *entry, st *unix.Statx_t) error {
	if err := rec.decode(e); err != nil {
		return err
	}
	if r.owners != nil && e.depth == 0 {
		// Who mounts something is not always one of those who use it.
		return r.owners.moveRoot(e, st)
	}
	return r.owners.move(e)
}

// step is called before every change of the tree.
func (r *rollback) step() error {
	if r.dry {
		return errDiffers
	}
	return r.ctx.Err()
}

// modify is called before every change of the names in a directory.
func (r *rollback) modify(f *frame) error {
	if err := r.step(); err != nil {
		return err
	}
	if f.locked {
		if err := setFlags(f.fd, 0); err != nil {
			return err
		}
		f.locked = false
	}
	f.touched = true
	return nil
}

// dir puts back an open directory, of which st tells, and what is in it.
func (r *rollback) dir(f *frame, st *unix.Statx_t) error {
	f.locked = inodeFlags(st) != 0
	rec := r.index.record(f.ord)
	have, err := readNames(f.fd, r.dirents[:])
	if err != nil {
		return err
	}
	if err := r.removeExtras(f, have); err != nil {
		return err
	}
	level := len(r.names)
	for child := f.ord + 1; child < r.index.end(f.ord); child = r.index.end(child) {
		name := string(r.index.record(child).name())
		for len(have) > 0 && have[0] < name {
			have = have[1:]
		}
		r.names = append(r.names[:level], name)
		if err := r.child(f, name, child, len(have) > 0 && have[0] == name); err != nil {
			return err
		}
	}
	r.names = r.names[:level]
	if id := r.snap.ids.ids[f.ord]; !f.made && !f.touched && id.unchanged(rec, st) {
		r.after.ids[f.ord] = id
		return nil
	}
	var e entry
	if err := r.decode(rec, &e, st); err != nil {
		return err
	}
	return r.restoreMetadata(f.fd, f.ord, &e, f.made)
}

// removeExtras deletes the names that the snapshot does not have.
func (r *rollback) removeExtras(f *frame, have []string) error {
	child, end := f.ord+1, r.index.end(f.ord)
	for _, name := range have {
		for child < end && string(r.index.record(child).name()) < name {
			child = r.index.end(child)
		}
		if child < end && string(r.index.record(child).name()) == name {
			continue
		}
		var st unix.Statx_t
		if err := statAt(f.fd, name, &st); err != nil {
			return err
		}
		if foreign(&st, r.dev) {
			r.stats.Mounts++
			continue
		}
		if err := r.remove(f, name, &st); err != nil {
			return err
		}
	}
	return nil
}

// child puts back one name in a directory.
func (r *rollback) child(f *frame, name string, ord int, exists bool) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	r.stats.Entries++
	rec := r.index.record(ord)
	var st unix.Statx_t
	if exists {
		if err := statAt(f.fd, name, &st); err != nil {
			return err
		}
		if foreign(&st, r.dev) || rec.kind() == kindMount {
			r.stats.Mounts++
			return nil
		}
	}
	switch rec.kind() {
	case kindMount:
		return r.makeMountPoint(f, name, rec)
	case kindDir:
		return r.childDir(f, name, ord, exists, &st)
	case kindLink:
		return r.childLink(f, name, ord, exists, &st)
	}
	id := r.snap.ids.ids[ord]
	if exists && kindOf(st.Mode) == rec.kind() && id.unchanged(rec, &st) {
		r.after.ids[ord] = id
		return nil
	}
	var e entry
	if err := r.decode(rec, &e, &st); err != nil {
		return err
	}
	if exists && reusable(&e, id, &st) {
		if kept, err := r.repair(f, name, ord, &e, &st); kept || err != nil {
			return err
		}
	}
	return r.replace(f, name, ord, &e, exists, &st)
}

// reusable reports whether an existing inode may be changed in place. Not if it
// could be the inode of another entry: names are linked and renamed at will
// after a capture.
func reusable(e *entry, id identity, st *unix.Statx_t) bool {
	switch {
	case kindOf(st.Mode) != e.kind,
		(e.kind == kindChar || e.kind == kindBlock) && (e.major != st.Rdev_major || e.minor != st.Rdev_minor):
		return false
	case e.whiteout():
		return true // repair only looks at it
	case id.ino == 0:
		return st.Nlink == 1
	}
	return id.sameInode(st)
}

func (r *rollback) childDir(f *frame, name string, ord int, exists bool, st *unix.Statx_t) error {
	if exists && kindOf(st.Mode) != kindDir {
		if err := r.remove(f, name, st); err != nil {
			return err
		}
		exists = false
	}
	if !exists {
		if err := r.modify(f); err != nil {
			return err
		}
		if err := unix.Mkdirat(f.fd, name, 0o700); err != nil {
			return pathError("mkdirat", name, err)
		}
		r.stats.Created++
	}
	fd, err := openDir(f.fd, name)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	if err := statAt(fd, "", st); err != nil {
		return err
	}
	return r.dir(&frame{fd: fd, ord: ord, made: !exists}, st)
}

// childLink puts back another name of an entry, which has been put back before.
func (r *rollback) childLink(f *frame, name string, ord int, exists bool, st *unix.Statx_t) error {
	leader := int(r.index.record(ord).link())
	if exists {
		if r.after.ids[leader].sameInode(st) {
			return nil
		}
		if err := r.remove(f, name, st); err != nil {
			return err
		}
	}
	if err := r.modify(f); err != nil {
		return err
	}
	parent, err := r.openParent(leader)
	if err != nil {
		return err
	}
	defer closeFD(parent)
	rec := r.index.record(leader)
	if err := clearFlags(parent, string(rec.name())); err != nil {
		return err
	}
	if err := unix.Linkat(parent, string(rec.name()), f.fd, name, 0); err != nil {
		return pathError("linkat", name, err)
	}
	r.stats.Created++
	if rec.flags() != 0 {
		if err := restoreFlags(f.fd, name, rec.flags()); err != nil {
			return err
		}
	}
	if err := statAt(f.fd, name, st); err != nil {
		return err
	}
	r.after.ids[leader] = identityOf(st, r.after.ids[leader].trusted)
	return nil
}

// openParent opens the directory that holds an entry.
func (r *rollback) openParent(ord int) (int, error) {
	fd, err := openDir(r.root, ".")
	for _, dir := range r.index.ancestors(ord) {
		if err != nil {
			break
		}
		var next int
		next, err = openDir(fd, string(r.index.record(dir).name()))
		closeFD(fd)
		fd = next
	}
	return fd, err
}
