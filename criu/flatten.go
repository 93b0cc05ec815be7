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

	"github.com/checkpoint-restore/go-criu/v7/crit/images/pagemap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
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

// flattenOne rewrites a page map and its pages.
func flattenOne(dirs []string, name string) error {
	var levels pageMaps
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
			if err := levels.find(0, r.vaddr, r.end(), f.copy(r.flags)); err != nil {
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
	levels pageMaps
	out    *bufio.Writer
	runs   []run
}

// copy writes the pages of a row that was asked for with flags, and is there with
// those of r.
func (f *flattening) copy(flags uint32) foundPages {
	return func(m *pageMap, r run, from, to uint64) error {
		out := run{vaddr: from, pages: (to - from) / pageBytes(), flags: flags}
		if r.flags&pagePresent != 0 {
			at := r.offset + int64(from-r.vaddr)
			if _, err := io.CopyN(f.out, io.NewSectionReader(m.file, at, int64(to-from)), int64(to-from)); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrCorrupt, m.file.Name(), err)
			}
			out.flags = flags&^pageInParent | pagePresent
		}
		f.add(out)
		return nil
	}
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
