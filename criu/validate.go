package criu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
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
	if err := validatePages(images); err != nil {
		return err
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
	_, err := fs.Stat(images, fmt.Sprintf("mm-%d.img", e.GetPid()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a zombie has no memory
	}
	if err == nil {
		_, err = fs.Stat(images, fmt.Sprintf("pagemap-%d.img", e.GetPid()))
	}
	return err
}

// validatePages makes sure that the memory which the page maps promise is there.
// CRIU would read for ever what is not.
func validatePages(images fs.FS) error {
	names, err := fs.Glob(images, "pagemap-*.img")
	if err != nil {
		return err
	}
	for _, name := range names {
		levels, err := readLevels(images, name)
		if err != nil {
			return err
		}
		for _, r := range levels[0].runs {
			if err := levels.find(0, r.vaddr, r.end(), func(*pageMap, run, uint64, uint64) error { return nil }); err != nil {
				return err
			}
		}
	}
	return nil
}

// readLevels reads a page map and those that its pages are in.
func readLevels(images fs.FS, name string) (pageMaps, error) {
	var levels pageMaps
	for {
		m, err := readPageMap(images, name)
		if errors.Is(err, fs.ErrNotExist) && len(levels) > 0 {
			return levels, nil
		}
		if err == nil {
			err = m.complete(images)
		}
		if err != nil {
			return nil, err
		}
		if levels = append(levels, m); !m.inParent() {
			return levels, nil
		}
		if len(levels) > 1+maxRounds {
			return nil, fmt.Errorf("%w: %s has more than %d parents", ErrCorrupt, name, maxRounds)
		}
		if images, err = fs.Sub(images, parentLink); err != nil {
			return nil, err
		}
	}
}
