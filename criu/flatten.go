package criu

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	// parentLink leads from a directory of images to that of the round before,
	// where the pages are that it lacks (CR_PARENT_LINK of criu/include/crtools.h).
	parentLink = "parent"
	// pageInParent says so of a page map entry (PE_PARENT of
	// criu/include/pagemap.h).
	pageInParent = 1 << 0
)

// flatten makes images that refer to those of pre-dumps whole, and removes the
// pre-dumps. rounds are their directories below images, newest first.
func flatten(images string, rounds []string) error {
	dirs := []string{images}
	for _, r := range rounds {
		dirs = append(dirs, filepath.Join(images, r))
	}
	list, err := filepath.Glob(filepath.Join(images, "pagemap-*.img"))
	if err != nil {
		return err
	}
	for _, path := range list {
		if err := flattenOne(dirs, filepath.Base(path)); err != nil {
			return fmt.Errorf("join %s with its pre-dumps: %w", filepath.Base(path), err)
		}
	}
	return removeRounds(images)
}

// run is a row of pages in a page map.
type run struct {
	vaddr, pages uint64
	flags        uint32
	offset       int64 // in the file of pages, if they are there
}

func (r run) end() uint64 { return r.vaddr + r.pages*pageBytes() }

func pageBytes() uint64 { return uint64(os.Getpagesize()) }

// pageMap is one page map with its pages.
type pageMap struct {
	id   uint32 // of the file of pages
	head []byte // the whole first entry
	runs []run  // by address
	file *os.File
}

// openPageMap reads a page map. It has no file if no page is in one.
func openPageMap(dir, name string) (*pageMap, error) {
	m := &pageMap{}
	offset := int64(0)
	err := readRaw(os.DirFS(dir), name, magicPagemap, func(b []byte) error {
		if m.head == nil {
			head, err := decode[pagemap.PagemapHead](b)
			m.id, m.head = head.GetPagesId(), slices.Clone(b)
			return err
		}
		e, err := decode[pagemap.PagemapEntry](b)
		if err != nil {
			return err
		}
		r := run{vaddr: e.GetVaddr(), pages: pageCount(e), flags: e.GetFlags(), offset: offset}
		if e.Flags == nil { // older than CRIU 3
			r.flags = pagePresent
			if e.GetInParent() {
				r.flags = pageInParent
			}
		}
		if r.pages > 1<<40 || r.end() < r.vaddr || len(m.runs) > 0 && r.vaddr < m.runs[len(m.runs)-1].end() {
			return fmt.Errorf("%w: the row of pages at %#x", ErrCorrupt, r.vaddr)
		}
		if r.flags&pagePresent != 0 {
			offset += int64(r.pages * pageBytes())
		}
		m.runs = append(m.runs, r)
		return nil
	})
	if err == nil && m.head == nil {
		err = fmt.Errorf("%w: %s is empty", ErrCorrupt, name)
	}
	if err != nil {
		return nil, err
	}
	m.file, err = os.Open(filepath.Join(dir, pagesName(m.id)))
	if errors.Is(err, fs.ErrNotExist) && offset == 0 {
		err = nil
	}
	return m, err
}

func (m *pageMap) close() {
	if m.file != nil {
		m.file.Close()
	}
}

func pagesName(id uint32) string { return fmt.Sprintf("pages-%d.img", id) }

// inParent reports whether any page is elsewhere.
func (m *pageMap) inParent() bool {
	return slices.ContainsFunc(m.runs, func(r run) bool { return r.flags&pageInParent != 0 })
}

// flattenOne rewrites a page map and its pages.
func flattenOne(dirs []string, name string) error {
	var levels []*pageMap
	defer func() {
		for _, m := range levels {
			m.close()
		}
	}()
	for i, dir := range dirs {
		m, err := openPageMap(dir, name)
		if errors.Is(err, fs.ErrNotExist) && i > 0 {
			break // the process began after this round
		}
		if err != nil {
			return err
		}
		levels = append(levels, m)
	}
	if !levels[0].inParent() {
		return nil
	}
	f := &flattening{levels: levels}
	pages := filepath.Join(dirs[0], pagesName(levels[0].id))
	return replaceWith(pages, func(out *bufio.Writer) error {
		f.out = out
		for _, r := range levels[0].runs {
			if err := f.copy(0, r.vaddr, r.end(), r.flags); err != nil {
				return err
			}
		}
		return replaceWith(filepath.Join(dirs[0], name), f.writeMap)
	})
}

// replaceWith writes a file anew. An error leaves it as it was.
func replaceWith(path string, write func(*bufio.Writer) error) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

// flattening collects the pages of one page map from all its levels.
type flattening struct {
	levels []*pageMap // newest first
	out    *bufio.Writer
	runs   []run
}

// copy writes the pages from one address to another as level has them, which was
// asked for with flags.
func (f *flattening) copy(level int, from, to uint64, flags uint32) error {
	if level == len(f.levels) {
		return fmt.Errorf("%w: the pages from %#x to %#x are in no pre-dump", ErrCorrupt, from, to)
	}
	m := f.levels[level]
	i := sort.Search(len(m.runs), func(i int) bool { return m.runs[i].end() > from })
	for ; from < to; i++ {
		if i == len(m.runs) || m.runs[i].vaddr > from {
			return fmt.Errorf("%w: the page at %#x is missing in a pre-dump", ErrCorrupt, from)
		}
		r, end := m.runs[i], min(to, m.runs[i].end())
		switch {
		case r.flags&pagePresent != 0:
			at := r.offset + int64(from-r.vaddr)
			if _, err := io.CopyN(f.out, io.NewSectionReader(m.file, at, int64(end-from)), int64(end-from)); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrCorrupt, m.file.Name(), err)
			}
			f.add(run{vaddr: from, pages: (end - from) / pageBytes(), flags: flags&^pageInParent | pagePresent})
		case r.flags&pageInParent != 0:
			if err := f.copy(level+1, from, end, flags); err != nil {
				return err
			}
		case level == 0: // neither here nor there: a page that is fetched when used
			f.add(run{vaddr: from, pages: (end - from) / pageBytes(), flags: flags})
		default:
			return fmt.Errorf("%w: the page at %#x has no contents in a pre-dump", ErrCorrupt, from)
		}
		from = end
	}
	return nil
}

// add appends a row, to the one before if they are one.
func (f *flattening) add(r run) {
	if n := len(f.runs); n > 0 && f.runs[n-1].end() == r.vaddr && f.runs[n-1].flags == r.flags {
		f.runs[n-1].pages += r.pages
		return
	}
	f.runs = append(f.runs, r)
}

func (f *flattening) writeMap(out *bufio.Writer) error {
	return writePageMap(out, f.levels[0].head, f.runs)
}

// writePageMap writes a page map image.
func writePageMap(out io.Writer, head []byte, runs []run) error {
	b := binary.NativeEndian.AppendUint32(nil, magicImage)
	b = binary.NativeEndian.AppendUint32(b, magicPagemap)
	entry := func(e []byte) {
		b = binary.NativeEndian.AppendUint32(b, uint32(len(e)))
		b = append(b, e...)
	}
	entry(head)
	for _, r := range runs {
		e, err := proto.Marshal(&pagemap.PagemapEntry{
			Vaddr: proto.Uint64(r.vaddr), NrPages: proto.Uint32(uint32(r.pages)), Flags: proto.Uint32(r.flags),
		})
		if err != nil {
			return err
		}
		e = protowire.AppendTag(e, wideCount, protowire.VarintType)
		entry(protowire.AppendVarint(e, r.pages))
	}
	_, err := out.Write(b)
	return err
}
