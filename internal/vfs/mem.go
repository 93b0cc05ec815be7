package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"
)

// MemFS is a file system in memory that knows which data is durable.
// Directories, once made, survive every crash; names and data do not.
type MemFS struct {
	// mu guards everything below it, in the files too: each operation is
	// atomic, which is more than a disk gives; CrashClone takes that back.
	mu   sync.Mutex
	dirs map[string]*memDir
}

// memDir is a directory: the names as they are, the names as they were at the
// last SyncDir, and what happened in between.
type memDir struct {
	names  map[string]*memNode
	synced map[string]*memNode
	log    []dirOp
	locked bool
}

// dirOp gives name to node, or takes the name away when node is nil. A rename
// within a directory is one operation with both.
type dirOp struct {
	unlink string
	link   string
	node   *memNode
}

// NewMem returns an empty file system with the root directory.
func NewMem() *MemFS {
	m := &MemFS{dirs: map[string]*memDir{}}
	m.dirs["/"] = newMemDir()
	m.dirs["."] = newMemDir()
	return m
}

func newMemDir() *memDir {
	return &memDir{names: map[string]*memNode{}, synced: map[string]*memNode{}}
}

func (d *memDir) apply(op dirOp) {
	if op.unlink != "" {
		delete(d.names, op.unlink)
	}
	if op.link != "" {
		d.names[op.link] = op.node
	}
	d.log = append(d.log, op)
}

func notExist(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// lookupLocked returns the directory of name and, if it exists, the file.
func (m *MemFS) lookupLocked(op, name string) (*memDir, *memNode, error) {
	d := m.dirs[path.Dir(path.Clean(name))]
	if d == nil {
		return nil, nil, notExist(op, name)
	}
	return d, d.names[path.Base(name)], nil
}

// Create implements FS.
func (m *MemFS) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, n, err := m.lookupLocked("create", name)
	if err != nil {
		return nil, err
	}
	if n == nil {
		n = &memNode{}
		d.apply(dirOp{link: path.Base(name), node: n})
	} else {
		n.truncate(0)
	}
	return &memFile{fs: m, node: n, name: name, write: true}, nil
}

// Open implements FS.
func (m *MemFS) Open(name string) (File, error) { return m.open(name, false) }

// OpenWrite implements FS.
func (m *MemFS) OpenWrite(name string) (File, error) { return m.open(name, true) }

func (m *MemFS) open(name string, write bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, n, err := m.lookupLocked("open", name)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, notExist("open", name)
	}
	return &memFile{fs: m, node: n, name: name, write: write}, nil
}

// Remove implements FS.
func (m *MemFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.dirs[path.Clean(name)]; d != nil {
		if len(d.names) > 0 {
			return &fs.PathError{Op: "remove", Path: name, Err: fmt.Errorf("directory not empty")}
		}
		delete(m.dirs, path.Clean(name))
		return nil
	}
	d, n, err := m.lookupLocked("remove", name)
	if err != nil {
		return err
	}
	if n == nil {
		return notExist("remove", name)
	}
	d.apply(dirOp{unlink: path.Base(name)})
	return nil
}

// Rename implements FS, within one directory.
func (m *MemFS) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, n, err := m.lookupLocked("rename", oldName)
	if err != nil {
		return err
	}
	if n == nil {
		return notExist("rename", oldName)
	}
	if path.Dir(path.Clean(oldName)) != path.Dir(path.Clean(newName)) {
		return &fs.PathError{Op: "rename", Path: newName, Err: fmt.Errorf("MemFS renames within one directory only")}
	}
	d.apply(dirOp{unlink: path.Base(oldName), link: path.Base(newName), node: n})
	return nil
}

// MkdirAll implements FS.
func (m *MemFS) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for d := path.Clean(dir); m.dirs[d] == nil; d = path.Dir(d) {
		m.dirs[d] = newMemDir()
	}
	return nil
}

// List implements FS. Subdirectories are not listed.
func (m *MemFS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[path.Clean(dir)]
	if d == nil {
		return nil, notExist("list", dir)
	}
	names := make([]string, 0, len(d.names))
	for name := range d.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir implements FS.
func (m *MemFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[path.Clean(dir)]
	if d == nil {
		return notExist("sync", dir)
	}
	d.synced = make(map[string]*memNode, len(d.names))
	for name, n := range d.names {
		d.synced[name] = n
	}
	d.log = nil
	return nil
}

// Lock implements FS.
func (m *MemFS) Lock(dir string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[path.Clean(dir)]
	if d == nil {
		return nil, notExist("lock", dir)
	}
	if d.locked {
		return nil, fmt.Errorf("%s: %w", dir, ErrLocked)
	}
	d.locked = true
	return &memLock{fs: m, dir: d}, nil
}

type memLock struct {
	fs  *MemFS
	dir *memDir
}

func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	l.dir.locked = false
	return nil
}
