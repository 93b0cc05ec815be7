package criu

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	file_lock "github.com/checkpoint-restore/go-criu/v7/crit/images/file-lock"
	ghost_file "github.com/checkpoint-restore/go-criu/v7/crit/images/ghost-file"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/regfile"
	remap_file_path "github.com/checkpoint-restore/go-criu/v7/crit/images/remap-file-path"
	sk_unix "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-unix"
	"golang.org/x/sys/unix"
)

const (
	magicMM    = 0x57492820
	magicRemap = 0x59133954
	magicGhost = 0x52583605
	magicLocks = 0x54323616
)

// Opened is a file that a restore opens or makes for the tasks, by its path.
type Opened struct {
	Path  string // absolute, in the container
	Write bool
}

// maxOpened bounds the number of files of a checkpoint.
const maxOpened = 1 << 20

// openedFiles looks at what is opened by path. CRIU opens it with the host's
// rights, and in tasks that still have its own descriptors.
type openedFiles struct {
	procs []string // where procfs is mounted
	byID  map[uint32]string
	out   map[Opened]bool
}

// readOpened fills c.Opened, and makes sure that each path is one that a dump
// writes: without links, `..` or ways out of procfs, opened without side effects.
func (c *Contents) readOpened(images fs.FS) error {
	o := &openedFiles{procs: c.procs, byID: map[uint32]string{}, out: map[Opened]bool{}}
	if err := eachFile(images, o.file); err != nil {
		return err
	}
	for _, step := range []func(fs.FS) error{o.mapped, o.remaps} {
		if err := step(images); err != nil {
			return err
		}
	}
	for f := range o.out {
		c.Opened = append(c.Opened, f)
	}
	slices.SortFunc(c.Opened, func(a, b Opened) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

func (o *openedFiles) file(e *fdinfo.FileEntry) error {
	switch e.GetType() {
	case fdinfo.FdTypes_REG:
		return o.regular(e.GetReg())
	case fdinfo.FdTypes_UNIXSK:
		return o.socket(e.GetUsk())
	case fdinfo.FdTypes_INOTIFY:
		for _, wd := range e.GetIfy().GetWd() {
			if name := wd.GetFHandle().GetPath(); name != "" {
				if err := o.check(name, "inotify watch"); err != nil {
					return err
				}
			}
		}
	case fdinfo.FdTypes_EXT:
		return fmt.Errorf("%w: file %d is opened by a plugin", ErrCorrupt, e.GetId())
	}
	return nil
}

func (o *openedFiles) regular(f *regfile.RegFileEntry) error {
	if f == nil {
		return fmt.Errorf("%w: file without a body", ErrCorrupt)
	}
	if err := o.check(f.GetName(), "open file"); err != nil {
		return err
	}
	if f.GetExt() {
		return fmt.Errorf("%w: file %q is one from outside", ErrCorrupt, f.GetName())
	}
	o.byID[f.GetId()] = f.GetName()
	return o.add(f.GetName(), f.GetFlags())
}

// add notes how a file is opened. The kernel forgets the flags that make and
// truncate files as soon as they have been obeyed, so no dump has them.
func (o *openedFiles) add(name string, flags uint32) error {
	if flags&(unix.O_CREAT|unix.O_EXCL|unix.O_TRUNC) != 0 {
		return fmt.Errorf("%w: %q would be made or truncated", ErrCorrupt, name)
	}
	if len(o.out) == maxOpened {
		return fmt.Errorf("%w: more than %d files", ErrCorrupt, maxOpened)
	}
	if flags&unix.O_PATH == 0 {
		o.out[Opened{Path: name, Write: flags&unix.O_ACCMODE != unix.O_RDONLY}] = true
	}
	return nil
}

// socket: CRIU makes bound ones, and connects to those outside.
func (o *openedFiles) socket(s *sk_unix.UnixSkEntry) error {
	name := strings.TrimRight(string(s.GetName()), "\x00")
	if name == "" || name[0] == 0 { // abstract: the network namespace's
		return nil
	}
	dir := "/"
	if s.NameDir != nil {
		dir = s.GetNameDir()
		if err := o.check(dir, "directory of a socket"); err != nil {
			return err
		}
	}
	if !strings.HasPrefix(name, "/") {
		name = strings.TrimSuffix(dir, "/") + "/" + strings.TrimPrefix(name, "./")
	}
	if err := o.check(name, "unix socket"); err != nil {
		return err
	}
	if s.GetUflags()&unixExternal != 0 {
		return o.add(name, unix.O_RDWR)
	}
	return o.add(path.Dir(name), unix.O_WRONLY)
}

// check refuses a path that no open file has.
func (o *openedFiles) check(name, what string) error {
	if !strings.HasPrefix(name, "/") || path.Clean(name) != name || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%w: %s with the path %q", ErrCorrupt, what, name)
	}
	for _, proc := range o.procs {
		rest, is := strings.CutPrefix(name, strings.TrimSuffix(proc, "/")+"/")
		if is && throughProcLink(strings.Split(rest, "/")) {
			return fmt.Errorf("%w: %s with the path %q, which leads through a link of procfs", ErrCorrupt, what, name)
		}
	}
	return nil
}

// throughProcLink says of a path in procfs that it leads through a link.
func throughProcLink(parts []string) bool {
	return slices.ContainsFunc(parts, func(part string) bool {
		return slices.Contains([]string{"self", "thread-self", "root", "cwd", "exe"}, part)
	}) || slices.ContainsFunc(parts[:len(parts)-1], func(part string) bool {
		return slices.Contains([]string{"fd", "map_files", "ns"}, part) // the directories themselves can be open
	})
}

// mapped looks at how the files are opened that are mapped.
func (o *openedFiles) mapped(images fs.FS) error {
	names, err := fs.Glob(images, "mm-*.img")
	if err != nil {
		return err
	}
	for _, name := range names {
		e, err := readSingle[mm.MmEntry](images, name, magicMM)
		if err != nil {
			return err
		}
		for _, v := range e.GetVmas() {
			file, ok := o.byID[uint32(v.GetShmid())]
			const private, shared = 1 << 6, 1 << 7 // VMA_FILE_PRIVATE, VMA_FILE_SHARED
			if !ok || v.GetStatus()&(private|shared) == 0 {
				continue
			}
			flags := v.GetFdflags()
			if v.Fdflags == nil && v.GetStatus()&shared != 0 && v.GetProt()&unix.PROT_WRITE != 0 {
				flags = unix.O_RDWR
			}
			if err := o.add(file, flags); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// remaps: Dump lets CRIU archive deleted files, and never link them.
func (o *openedFiles) remaps(images fs.FS) error {
	err := readEntries(images, "remap-fpath.img", magicRemap, func(e *remap_file_path.RemapFilePathEntry) error {
		if e.GetRemapType() == remap_file_path.RemapType_LINKED {
			return fmt.Errorf("%w: file %d is a link of file %d", ErrCorrupt, e.GetOrigId(), e.GetRemapId())
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// readSpecial looks for deleted files and locks that only some programs can have.
func (c *Contents) readSpecial(images fs.FS) error {
	ghosts, err := fs.Glob(images, "ghost-file-*.img")
	if err != nil {
		return err
	}
	for _, name := range ghosts {
		err := readEntries(images, name, magicGhost, func(e *ghost_file.GhostFileEntry) error {
			if kind := e.GetMode() & unix.S_IFMT; kind == unix.S_IFCHR || kind == unix.S_IFBLK {
				c.Needs["CAP_MKNOD"] = "a deleted device open"
			}
			return errStop // contents follow
		})
		if err != nil {
			return err
		}
	}
	err = readEntries(images, "filelocks.img", magicLocks, func(e *file_lock.FileLockEntry) error {
		const lease = 8 // FL_LEASE of criu/include/file-lock.h
		if e.GetFlag()&lease != 0 {
			c.Needs["CAP_LEASE"] = "a lease on a file"
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
