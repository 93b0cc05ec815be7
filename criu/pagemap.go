package criu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// parentLink leads from a directory of images to that of the round before,
	// where the pages are that it lacks (CR_PARENT_LINK of criu/include/crtools.h).
	parentLink = "parent"
	// pageInParent says so of a page map entry (PE_PARENT of
	// criu/include/pagemap.h).
	pageInParent = 1 << 0
	// pagePresent says that a page map entry's pages are in the pages file
	// (PE_PRESENT there).
	pagePresent = 1 << 2
)

// run is a row of pages in a page map.
type run struct {
	vaddr, pages uint64
	flags        uint32
	offset       int64 // in the file of pages, if they are there
}

func (r run) end() uint64 { return r.vaddr + r.pages*pageBytes() }

func pageBytes() uint64 { return uint64(os.Getpagesize()) }

// pageMap is one page map.
type pageMap struct {
	name string
	id   uint32 // of the file of pages
	head []byte // the whole first entry
	runs []run  // by address
	size int64  // of what the file of pages has to have, in bytes
	file *os.File
}

// maxPages bounds a page map: 4 petabytes.
const maxPages = 1 << 40

// readPageMap reads a page map, and does not open its pages.
func readPageMap(images fs.FS, name string) (*pageMap, error) {
	m := &pageMap{name: name}
	err := readRaw(images, name, magicPagemap, func(b []byte) error {
		if m.head == nil {
			head, err := decode[pagemap.PagemapHead](b)
			m.id, m.head = head.GetPagesId(), slices.Clone(b)
			return err
		}
		e, err := decode[pagemap.PagemapEntry](b)
		if err != nil {
			return err
		}
		r := run{vaddr: e.GetVaddr(), pages: pageCount(e), flags: e.GetFlags(), offset: m.size}
		if e.Flags == nil { // older than CRIU 3
			r.flags = pagePresent
			if e.GetInParent() {
				r.flags = pageInParent
			}
		}
		if r.pages > maxPages || r.end() < r.vaddr || len(m.runs) > 0 && r.vaddr < m.runs[len(m.runs)-1].end() {
			return fmt.Errorf("%w: the row of pages at %#x", ErrCorrupt, r.vaddr)
		}
		if r.flags&pagePresent != 0 {
			m.size += int64(r.pages * pageBytes())
		}
		if m.size > int64(maxPages*pageBytes()) {
			return fmt.Errorf("%w: too many pages", ErrCorrupt)
		}
		m.runs = append(m.runs, r)
		return nil
	})
	if err == nil && m.head == nil {
		err = fmt.Errorf("%w: %s is empty", ErrCorrupt, name)
	}
	return m, err
}

// openPageMap reads a page map and opens its pages. It has no file if no page is
// in one.
func openPageMap(dir, name string) (*pageMap, error) {
	m, err := readPageMap(os.DirFS(dir), name)
	if err != nil {
		return nil, err
	}
	m.file, err = os.Open(filepath.Join(dir, pagesName(m.id)))
	if errors.Is(err, fs.ErrNotExist) && m.size == 0 {
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

// complete returns an error if the file of pages has less than the map promises.
func (m *pageMap) complete(images fs.FS) error {
	st, err := fs.Stat(images, pagesName(m.id))
	if errors.Is(err, fs.ErrNotExist) && m.size == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Size() < m.size {
		return fmt.Errorf("%w: %s has %d bytes, and %s promises %d", ErrCorrupt, pagesName(m.id), st.Size(), m.name, m.size)
	}
	return nil
}

// pageMaps are a page map and those of its parents, newest first.
type pageMaps []*pageMap

// foundPages is called with the row of m that has the pages between two addresses.
type foundPages func(m *pageMap, r run, from, to uint64) error

// find looks for the pages from one address to another, beginning with a level.
// Pages of the newest that are neither there nor in a parent are found too: they
// are fetched when used.
func (l pageMaps) find(level int, from, to uint64, found foundPages) error {
	if level == len(l) {
		return fmt.Errorf("%w: the pages of %s from %#x to %#x are in no pre-dump", ErrCorrupt, l[0].name, from, to)
	}
	m := l[level]
	i := sort.Search(len(m.runs), func(i int) bool { return m.runs[i].end() > from })
	for ; from < to; i++ {
		if i == len(m.runs) || m.runs[i].vaddr > from {
			return fmt.Errorf("%w: the page of %s at %#x is missing in a pre-dump", ErrCorrupt, m.name, from)
		}
		r, end := m.runs[i], min(to, m.runs[i].end())
		var err error
		switch {
		case r.flags&pagePresent != 0, level == 0 && r.flags&pageInParent == 0:
			err = found(m, r, from, end)
		case r.flags&pageInParent != 0:
			err = l.find(level+1, from, end, found)
		default:
			err = fmt.Errorf("%w: the page of %s at %#x has no contents in a pre-dump", ErrCorrupt, m.name, from)
		}
		if err != nil {
			return err
		}
		from = end
	}
	return nil
}

// wideCount is the number of pages of a page map entry, as 64 bits.
const wideCount = 5

// pageCount returns how many pages an entry is about. CRIU 4.2 moved the number
// to wideCount, which the protobuf of go-criu v7 does not know.
func pageCount(e *pagemap.PagemapEntry) uint64 {
	for b := e.ProtoReflect().GetUnknown(); len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			break
		}
		if num == wideCount && typ == protowire.VarintType {
			if v, m := protowire.ConsumeVarint(b[n:]); m > 0 {
				return v
			}
			break
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			break
		}
		b = b[n+m:]
	}
	return uint64(e.GetNrPages())
}
