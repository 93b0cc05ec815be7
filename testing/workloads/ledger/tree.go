package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// inode is what a file should hold.
type inode struct {
	data   []byte
	target string // of a symbolic link
	names  int
	sparse bool
}

// orphan is a file that is open and has no name any more.
type orphan struct {
	file *os.File
	data []byte
}

// tree is a directory and what should be in it.
type tree struct {
	dir     string
	log     *os.File // open for as long as the program runs
	written []byte   // to the log
	files   map[string]*inode
	orphans []*orphan
}

const (
	logName = "log"
	// maxOrphans bounds the open files without a name.
	maxOrphans = 3
)

func newTree(dir string) (*tree, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	return &tree{dir: dir, log: f, files: map[string]*inode{}}, nil
}

func (t *tree) path(name string) string { return filepath.Join(t.dir, name) }

// take appends the n-th record; every fourth time something happens to another
// file.
func (t *tree) take(n int, record string) error {
	if _, err := t.log.WriteString(record); err != nil {
		return err
	}
	t.written = append(t.written, record...)
	if n%4 != 0 {
		return nil
	}
	k := n / 4
	steps := []func(int, []byte) error{
		t.create, t.grow, t.rename, t.link, t.create, t.sparse, t.symlink, t.orphan, t.growOrphan, t.remove,
	}
	return steps[k%len(steps)](k/len(steps), []byte(record))
}

// regular chooses one of the regular files; it returns "" if there is none.
func (t *tree) regular(k int) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(t.files)) {
		if f := t.files[name]; f.target == "" && !f.sparse {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[k%len(names)]
}

// create makes a file, or begins one again.
func (t *tree) create(k int, record []byte) error {
	name := fmt.Sprint("file-", k%20)
	if err := os.WriteFile(t.path(name), record, 0o640); err != nil {
		return err
	}
	if t.files[name] == nil {
		t.files[name] = &inode{names: 1}
	}
	t.files[name].data = slices.Clone(record)
	return nil
}

func (t *tree) grow(k int, record []byte) error {
	name := t.regular(k)
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(t.path(name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(record)
	t.files[name].data = append(t.files[name].data, record...)
	return errors.Join(err, f.Close())
}

func (t *tree) rename(k int, _ []byte) error {
	name, to := t.regular(k), fmt.Sprint("renamed-", k%5)
	if name == "" || name == to || t.files[name] == t.files[to] {
		return nil
	}
	if err := os.Rename(t.path(name), t.path(to)); err != nil {
		return err
	}
	t.forget(to)
	t.files[to] = t.files[name]
	delete(t.files, name)
	return nil
}

func (t *tree) link(k int, _ []byte) error {
	name, to := t.regular(k), fmt.Sprint("link-", k%5)
	if name == "" || t.files[to] != nil {
		return nil
	}
	t.files[to] = t.files[name]
	t.files[to].names++
	return os.Link(t.path(name), t.path(to))
}

func (t *tree) sparse(k int, record []byte) error {
	const hole = 200 << 10
	name := fmt.Sprint("sparse-", k%4)
	if err := t.unlink(name); err != nil {
		return err
	}
	f, err := os.Create(t.path(name))
	if err != nil {
		return err
	}
	_, err = f.WriteAt(record, hole)
	t.files[name] = &inode{names: 1, sparse: true, data: append(make([]byte, hole), record...)}
	return errors.Join(err, f.Close())
}

func (t *tree) symlink(k int, record []byte) error {
	name := fmt.Sprint("symlink-", k%4)
	if err := t.unlink(name); err != nil {
		return err
	}
	target := "/nowhere/" + string(bytes.TrimSpace(record))
	t.files[name] = &inode{names: 1, target: target}
	return os.Symlink(target, t.path(name))
}

// orphan opens a file and takes its name away.
func (t *tree) orphan(_ int, record []byte) error {
	if len(t.orphans) == maxOrphans {
		if err := t.orphans[0].file.Close(); err != nil {
			return err
		}
		t.orphans = slices.Delete(t.orphans, 0, 1)
	}
	f, err := os.Create(t.path("orphan"))
	if err != nil {
		return err
	}
	t.orphans = append(t.orphans, &orphan{file: f})
	return errors.Join(os.Remove(f.Name()), t.growOrphan(len(t.orphans)-1, record))
}

func (t *tree) growOrphan(k int, record []byte) error {
	if len(t.orphans) == 0 {
		return nil
	}
	o := t.orphans[k%len(t.orphans)]
	_, err := o.file.WriteAt(record, int64(len(o.data)))
	o.data = append(o.data, record...)
	return err
}

func (t *tree) remove(k int, _ []byte) error {
	if k%2 == 0 {
		return nil // they would never become many
	}
	return t.unlink(t.regular(k))
}

// unlink removes a name, if it is there.
func (t *tree) unlink(name string) error {
	if t.files[name] == nil {
		return nil
	}
	t.forget(name)
	return os.Remove(t.path(name))
}

func (t *tree) forget(name string) {
	if f := t.files[name]; f != nil {
		f.names--
		delete(t.files, name)
	}
}

// verify says what is not as it should be.
func (t *tree) verify() error {
	got, err := os.ReadFile(t.path(logName))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, t.written) {
		return fmt.Errorf("the log has %d bytes, memory %d", len(got), len(t.written))
	}
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != logName && t.files[e.Name()] == nil {
			return fmt.Errorf("%s should not be there", e.Name())
		}
	}
	for name, f := range t.files {
		if err := f.verify(t.path(name)); err != nil {
			return err
		}
	}
	for i, o := range t.orphans {
		got := make([]byte, len(o.data)+1)
		n, _ := o.file.ReadAt(got, 0)
		if !bytes.Equal(got[:n], o.data) {
			return fmt.Errorf("open file %d without a name has %d bytes, not %d", i, n, len(o.data))
		}
	}
	return nil
}

func (f *inode) verify(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	if int(st.Nlink) != f.names {
		return fmt.Errorf("%s has %d names, not %d", path, st.Nlink, f.names)
	}
	if f.target != "" {
		target, err := os.Readlink(path)
		if err == nil && target != f.target {
			err = fmt.Errorf("%s leads to %s, not %s", path, target, f.target)
		}
		return err
	}
	if f.sparse && st.Blocks*512 > st.Size/2 {
		return fmt.Errorf("%s is not sparse: %d blocks", path, st.Blocks)
	}
	got, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(got, f.data) {
		err = fmt.Errorf("%s has %d bytes %.60q, not %d %.60q", path, len(got), got, len(f.data), f.data)
	}
	return err
}

// lower changes files of the image: whiteouts and opaque directories.
type lower struct {
	gone  bool // the file of the image
	begun bool
	names []string // in the directory that was made again
}

const (
	imageFile = "/etc/nsswitch.conf"
	imageDir  = "/var/tmp"
)

// change removes the file of the image or makes it again; the directory is
// replaced by an empty one each time, which hides the image's.
func (l *lower) change(k int) error {
	var err error
	if l.gone = k%2 == 0; l.gone {
		err = os.Remove(imageFile)
	} else {
		err = os.WriteFile(imageFile, fmt.Append(nil, k), 0o644)
	}
	if !l.begun && errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	l.begun = true
	name := fmt.Sprint("of-", k)
	l.names = []string{name}
	return errors.Join(err, os.RemoveAll(imageDir), os.Mkdir(imageDir, 0o777), os.WriteFile(filepath.Join(imageDir, name), nil, 0o600))
}

func (l *lower) verify() error {
	if !l.begun {
		return nil
	}
	if _, err := os.Lstat(imageFile); errors.Is(err, fs.ErrNotExist) != l.gone {
		return fmt.Errorf("%s: should be gone: %t: %w", imageFile, l.gone, err)
	}
	entries, err := os.ReadDir(imageDir)
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, l.names) {
		return fmt.Errorf("%s holds %q, not %q", imageDir, names, l.names)
	}
	return nil
}
