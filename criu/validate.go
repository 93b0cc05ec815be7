package criu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
	"google.golang.org/protobuf/encoding/protowire"
)

// Validate checks that a directory holds a complete checkpoint: the parts that
// every restore needs are there and parse, each process has its images, and the
// memory that is promised is there. It reads no memory contents. The error
// wraps ErrCorrupt, or fs.ErrNotExist for a part that is not there.
func Validate(images string) error {
	if err := validate(os.DirFS(images)); err != nil {
		return fmt.Errorf("checkpoint %s: %w", images, err)
	}
	return nil
}

func validate(images fs.FS) error {
	// CRIU writes the inventory last: a dump that was cut short has none.
	if _, err := readSingle[inventory.InventoryEntry](images, inventoryFile, magicInventory); err != nil {
		return err
	}
	if _, err := readMeta(images); err != nil {
		return err
	}
	if _, err := fs.Stat(images, descriptorsFile); err != nil {
		return err
	}
	if err := eachFile(images, func(*fdinfo.FileEntry) error { return nil }); err != nil {
		return err
	}
	tasks := 0
	err := readEntries(images, "pstree.img", magicPstree, func(e *pstree.PstreeEntry) error {
		tasks++
		return validateTask(images, e)
	})
	if err != nil {
		return err
	}
	if tasks == 0 {
		return fmt.Errorf("%w: pstree.img has no process", ErrCorrupt)
	}
	_, err = tcpSockets(images)
	return err
}

func validateTask(images fs.FS, e *pstree.PstreeEntry) error {
	for _, tid := range append([]uint32{e.GetPid()}, e.GetThreads()...) {
		if _, err := fs.Stat(images, fmt.Sprintf("core-%d.img", tid)); err != nil {
			return err
		}
	}
	if _, err := fs.Stat(images, fmt.Sprintf("mm-%d.img", e.GetPid())); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a zombie has no memory
		}
		return err
	}
	return validatePages(images, e.GetPid())
}

// pagePresent says that a pagemap entry's pages are in the pages file
// (PE_PRESENT of criu/include/pagemap.h).
const pagePresent = 1 << 2

// validatePages compares a process's page map with the size of the file that
// its pages are in.
func validatePages(images fs.FS, pid uint32) error {
	name := fmt.Sprintf("pagemap-%d.img", pid)
	var pages uint64
	var id uint32
	first := true
	err := readRaw(images, name, magicPagemap, func(b []byte) error {
		if first {
			first = false
			head, err := decode[pagemap.PagemapHead](b)
			id = head.GetPagesId()
			return err
		}
		e, err := decode[pagemap.PagemapEntry](b)
		if err != nil {
			return err
		}
		if e.Flags == nil || e.GetFlags()&pagePresent != 0 {
			pages += pageCount(e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if first {
		return fmt.Errorf("%w: %s is empty", ErrCorrupt, name)
	}
	st, err := fs.Stat(images, fmt.Sprintf("pages-%d.img", id))
	if err != nil {
		return err
	}
	size := uint64(st.Size()) / uint64(os.Getpagesize())
	if size < pages {
		return fmt.Errorf("%w: pages-%d.img has %d whole pages, and %s promises %d", ErrCorrupt, id, size, name, pages)
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
