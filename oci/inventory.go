package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"
)

// ownLayer is the size from which on a pack of files is a layer of its own, so
// that later images can share it.
const ownLayer = 64 << 10

// item is a file of a checkpoint.
type item struct {
	name string // in the layer, or its path below the checkpoint directory
	path string
	size int64
	key  fileKey
}

// fileKey changes when a file is another one. The time of change does not count:
// it moves with every hard link.
type fileKey struct {
	dev, inode, size, birth, modified int64
}

// inventory is what a checkpoint directory holds, sorted by purpose.
type inventory struct {
	top   []item // dump.log and stats-dump
	state []item // CRIU's images but for the pages
	pages []item // the files of pages
	ours  []item // the cut, and what the snapshots of the file system consist of
	packs []item // large packs
}

// names says which names a checkpoint may hold. Fetch refuses others.
type names struct{ image, pages, tree, pack *regexp.Regexp }

func nameRules() names {
	return names{
		image: regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`),
		pages: regexp.MustCompile(`^pages-[0-9]{1,10}\.img$`),
		tree:  regexp.MustCompile(`^(layer|(scratch|volume)-[0-9]{1,4})$`),
		pack:  regexp.MustCompile(`^pack\.[0-9a-f]{8}$`),
	}
}

// transient are files beside the images that a restore writes.
func transient() []string { return []string{"restore.log", "files.img.new"} }

// standardTop are files that the standard layout has beside the images.
func standardTop() []string { return []string{"dump.log", "stats-dump"} }

// takeInventory lists a checkpoint directory, and the directory of its images.
//
// Errors: ErrNotPublishable.
func takeInventory(dir, images string) (*inventory, error) {
	inv := &inventory{}
	if err := inv.images(images, nameRules()); err != nil {
		return nil, fmt.Errorf("%s: %w", images, err)
	}
	for _, step := range []func(string, names) error{inv.cut, inv.trees} {
		if err := step(dir, nameRules()); err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
	}
	return inv, nil
}

func (inv *inventory) images(dir string, rules names) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotPublishable, err)
	}
	for _, e := range list {
		if slices.Contains(transient(), e.Name()) {
			continue
		}
		it, err := newItem(dir, e.Name())
		if err != nil {
			return err
		}
		if !rules.image.MatchString(e.Name()) {
			return fmt.Errorf("%w: image %q", ErrNotPublishable, e.Name())
		}
		switch {
		case slices.Contains(standardTop(), e.Name()):
			inv.top = append(inv.top, it)
		case rules.pages.MatchString(e.Name()) && it.size%pageSize == 0:
			inv.pages = append(inv.pages, it)
		default:
			inv.state = append(inv.state, it)
		}
	}
	if !slices.ContainsFunc(inv.state, func(it item) bool { return it.name == "inventory.img" }) {
		return fmt.Errorf("%w: images/inventory.img is missing", ErrNotPublishable)
	}
	return nil
}

func (inv *inventory) cut(dir string, _ names) error {
	it, err := newItem(dir, "cut.json")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNotPublishable, err)
	}
	inv.ours = append(inv.ours, it)
	return err
}

func (inv *inventory) trees(dir string, rules names) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, tree := range list {
		if !tree.IsDir() || !rules.tree.MatchString(tree.Name()) {
			continue
		}
		files, err := os.ReadDir(filepath.Join(dir, tree.Name()))
		if err != nil {
			return err
		}
		for _, f := range files {
			if f.Name() != "manifest" && !rules.pack.MatchString(f.Name()) {
				continue
			}
			it, err := newItem(dir, tree.Name()+"/"+f.Name())
			if err != nil {
				return err
			}
			if f.Name() != "manifest" && it.size >= ownLayer {
				inv.packs = append(inv.packs, it)
			} else {
				inv.ours = append(inv.ours, it)
			}
		}
	}
	return nil
}

// newItem looks at a file. Only regular ones belong to a checkpoint.
func newItem(dir, name string) (item, error) {
	it := item{name: name, path: filepath.Join(dir, name)}
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, it.path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if err != nil {
		return item{}, &fs.PathError{Op: "statx", Path: it.path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return item{}, fmt.Errorf("%w: %s is not a regular file", ErrNotPublishable, name)
	}
	nano := func(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
	it.size = int64(st.Size)
	it.key = fileKey{
		dev: int64(unix.Mkdev(st.Dev_major, st.Dev_minor)), inode: int64(st.Ino), size: it.size,
		birth: nano(st.Btime), modified: nano(st.Mtime),
	}
	return it, nil
}

func (it *item) open() (*os.File, error) {
	return os.OpenFile(it.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}
