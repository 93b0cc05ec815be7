package oci

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

const (
	deltaMagic      = "crscpage"
	deltaVersion    = 1
	deltaHeaderSize = 64
	// ownPages is the source of a run whose pages are in the layer itself.
	ownPages = 1<<32 - 1

	maxSources = 64
	maxFiles   = 1 << 16
)

// delta describes the memory of a checkpoint in terms of pages that earlier
// layers hold and pages of its own.
type delta struct {
	sources []digest.Digest // of the earlier layers that runs refer to
	files   []deltaFile
	own     uint64 // pages
}

// deltaFile is one file of pages.
type deltaFile struct {
	name string
	runs []run
}

// run is a sequence of pages of one layer.
type run struct {
	source uint32 // index of delta.sources, or ownPages
	count  uint32 // at least 1
	first  uint64
}

func (f *deltaFile) pages() (n uint64) {
	for _, r := range f.runs {
		n += uint64(r.count)
	}
	return n
}

// comparison finds out what is new.
type comparison struct {
	delta
	table *pageTable
	fresh map[pageID]uint32 // own pages
	place uint32            // of the layer in the chain
	added []byte            // records
}

// compare reads the files of pages. Runs then have numbers of the chain as
// sources.
func compare(ctx context.Context, files []item, table *pageTable, number uint32) (*comparison, error) {
	c := &comparison{table: table, fresh: map[pageID]uint32{}, place: number}
	for _, it := range files {
		f, err := it.open()
		if err != nil {
			return nil, err
		}
		df := deltaFile{name: it.name}
		err = eachPage(ctx, f, it.size, func(page []byte) error {
			df.append(c.look(page))
			return nil
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("compare %s: %w", it.path, err)
		}
		c.files = append(c.files, df)
	}
	return c, nil
}

func (c *comparison) look(page []byte) place {
	id := idOf(page)
	if p, ok := c.table.find(id); ok {
		return p
	}
	n, ok := c.fresh[id]
	if !ok {
		n = uint32(c.own)
		c.own++
		c.fresh[id] = n
		c.added = appendRecord(c.added, id, place{c.place, n})
	}
	return place{ownPages, n}
}

func (f *deltaFile) append(p place) {
	if n := len(f.runs); n > 0 {
		if last := &f.runs[n-1]; last.source == p.layer && last.first+uint64(last.count) == uint64(p.page) && last.count < 1<<31 {
			last.count++
			return
		}
	}
	f.runs = append(f.runs, run{source: p.layer, count: 1, first: uint64(p.page)})
}

// bind replaces numbers of the chain by sources, those that are used. It
// returns which ones these are.
func (d *delta) bind(chain []layer) []layer {
	var used []layer
	index := map[uint32]uint32{}
	for i := range d.files {
		for j := range d.files[i].runs {
			r := &d.files[i].runs[j]
			if r.source == ownPages {
				continue
			}
			n, ok := index[r.source]
			if !ok {
				n = uint32(len(used))
				index[r.source] = n
				used = append(used, chain[r.source])
				d.sources = append(d.sources, chain[r.source].desc.Digest)
			}
			r.source = n
		}
	}
	return used
}

// write encodes the delta; files are those that were compared.
func (d *delta) write(ctx context.Context, w io.Writer, files []item) error {
	le := binary.LittleEndian
	b := append([]byte(nil), deltaMagic...)
	b = le.AppendUint16(b, deltaVersion)
	b = le.AppendUint16(b, deltaHeaderSize)
	b = le.AppendUint32(b, pageSize)
	b = le.AppendUint32(b, uint32(len(d.sources)))
	b = le.AppendUint32(b, uint32(len(d.files)))
	b = le.AppendUint64(b, d.own)
	b = append(b, make([]byte, deltaHeaderSize-len(b))...)
	for _, s := range d.sources {
		sum, err := hex.DecodeString(s.Encoded())
		if err != nil {
			return err
		}
		b = append(b, sum...)
	}
	for _, f := range d.files {
		b = le.AppendUint32(b, uint32(len(f.name)))
		b = le.AppendUint32(b, uint32(len(f.runs)))
		b = append(b, f.name...)
		for _, r := range f.runs {
			b = le.AppendUint32(b, r.source)
			b = le.AppendUint32(b, r.count)
			b = le.AppendUint64(b, r.first)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		b = b[:0]
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return d.writePages(ctx, w, files)
}

// writePages copies the layer's own pages. They are numbered in the order in
// which they come up first.
func (d *delta) writePages(ctx context.Context, w io.Writer, files []item) error {
	next := uint64(0)
	buf := make([]byte, 64*pageSize)
	for i, it := range files {
		f, err := it.open()
		if err != nil {
			return err
		}
		at := int64(0)
		for _, r := range d.files[i].runs {
			end := r.first + uint64(r.count)
			if r.source == ownPages && end > next {
				skip := next - r.first
				n := int64(uint64(r.count)-skip) * pageSize
				section := io.NewSectionReader(f, at+int64(skip)*pageSize, n)
				if err = copyExactly(ctx, w, section, n, buf); err != nil {
					break
				}
				next = end
			}
			at += int64(r.count) * pageSize
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", it.path, err)
		}
	}
	return nil
}

// copyExactly copies n bytes, and minds ctx.
func copyExactly(ctx context.Context, w io.Writer, r io.Reader, n int64, buf []byte) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(n, int64(len(buf)))]
		if _, err := io.ReadFull(r, b); err != nil {
			return cutShort(err)
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		n -= int64(len(b))
	}
	return nil
}

// cutShort: where bytes are missing, an end at the first is like any other.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readDelta decodes all but the pages, which follow in r. maxPages bounds the
// memory that the delta describes.
//
// Errors: ErrCorrupt, ErrUnsupportedVersion, ErrTooLarge.
func readDelta(r *bufio.Reader, maxPages uint64) (*delta, error) {
	le := binary.LittleEndian
	head := make([]byte, deltaHeaderSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, damaged("pages", "header: %v", err)
	}
	sources, files := le.Uint32(head[16:]), le.Uint32(head[20:])
	d := &delta{own: le.Uint64(head[24:])}
	switch {
	case string(head[:8]) != deltaMagic || le.Uint16(head[10:]) != deltaHeaderSize || le.Uint32(head[12:]) != pageSize:
		return nil, damaged("pages", "wrong header")
	case le.Uint16(head[8:]) != deltaVersion:
		return nil, fmt.Errorf("pages: %w: %d", ErrUnsupportedVersion, le.Uint16(head[8:]))
	case sources > maxSources || files > maxFiles:
		return nil, damaged("pages", "%d sources, %d files", sources, files)
	case d.own > maxPages:
		return nil, fmt.Errorf("pages: %w: %d pages", ErrTooLarge, d.own)
	}
	for range sources {
		sum := make([]byte, 32)
		if _, err := io.ReadFull(r, sum); err != nil {
			return nil, damaged("pages", "sources: %v", err)
		}
		d.sources = append(d.sources, digest.NewDigestFromBytes(digest.SHA256, sum))
	}
	seen, total := map[string]bool{}, uint64(0)
	for range files {
		f, err := d.readFile(r, maxPages-total)
		if err != nil {
			return nil, err
		}
		if seen[f.name] {
			return nil, damaged("pages", "%s comes twice", f.name)
		}
		seen[f.name] = true
		total += f.pages()
		d.files = append(d.files, *f)
	}
	return d, nil
}

func (d *delta) readFile(r io.Reader, maxPages uint64) (*deltaFile, error) {
	le := binary.LittleEndian
	b := make([]byte, 16)
	if _, err := io.ReadFull(r, b[:8]); err != nil {
		return nil, damaged("pages", "files: %v", err)
	}
	nameLen, runs := le.Uint32(b), le.Uint32(b[4:])
	if nameLen > 64 {
		return nil, damaged("pages", "a name of %d bytes", nameLen)
	}
	name := make([]byte, nameLen)
	if _, err := io.ReadFull(r, name); err != nil {
		return nil, damaged("pages", "files: %v", err)
	}
	f := &deltaFile{name: string(name)}
	if !nameRules().pages.MatchString(f.name) {
		return nil, damaged("pages", "name %q", f.name)
	}
	total := uint64(0)
	for range runs {
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, damaged("pages", "runs: %v", err)
		}
		x := run{source: le.Uint32(b), count: le.Uint32(b[4:]), first: le.Uint64(b[8:])}
		if x.count == 0 || x.source != ownPages && int64(x.source) >= int64(len(d.sources)) ||
			x.first > 1<<40 || x.source == ownPages && x.first+uint64(x.count) > d.own {
			return nil, damaged("pages", "%s: a run of %d pages at %d of source %d", f.name, x.count, x.first, x.source)
		}
		if total += uint64(x.count); total > maxPages {
			return nil, fmt.Errorf("pages: %w: %d pages", ErrTooLarge, total)
		}
		f.runs = append(f.runs, x)
	}
	return f, nil
}

// damaged returns an ErrCorrupt that says what of an image is wrong, and how.
func damaged(what, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrCorrupt, what, fmt.Sprintf(format, args...))
}
