package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
)

// pageSize of the comparison, in bytes. CRIU's files of pages consist of whole
// pages of the machine, which are never smaller.
const pageSize = 4096

// pageID tells pages apart. 128 bits of SHA-256: whoever could make two pages
// with the same ID would damage nothing but a restore of his own container.
type pageID [16]byte

func idOf(page []byte) pageID {
	sum := sha256.Sum256(page)
	return pageID(sum[:16])
}

// place is where a page is: the layer's number in the chain, and the page's in
// the layer.
type place struct {
	layer uint32
	page  uint32
}

// pageTable finds pages of a chain by their content. It is kept in a file
// between publications, as records sorted by ID.
type pageTable struct{ records []byte }

const recordSize = 16 + 4 + 4

func appendRecord(b []byte, id pageID, p place) []byte {
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint32(b, p.layer)
	return binary.BigEndian.AppendUint32(b, p.page)
}

func (t *pageTable) len() int            { return len(t.records) / recordSize }
func (t *pageTable) record(i int) []byte { return t.records[i*recordSize : (i+1)*recordSize] }

func placeIn(record []byte) place {
	return place{binary.BigEndian.Uint32(record[16:]), binary.BigEndian.Uint32(record[20:])}
}

func (t *pageTable) find(id pageID) (place, bool) {
	lo, hi := 0, t.len()
	for lo < hi {
		mid := (lo + hi) / 2
		r := t.record(mid)
		switch bytes.Compare(r[:16], id[:]) {
		case 0:
			return placeIn(r), true
		case -1:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return place{}, false
}

// add puts further records in, in any order. Of several for one ID one stays.
func (t *pageTable) add(records []byte) {
	all := slices.Concat(t.records, records)
	list := make([][recordSize]byte, len(all)/recordSize)
	for i := range list {
		copy(list[i][:], all[i*recordSize:])
	}
	slices.SortFunc(list, func(a, b [recordSize]byte) int { return bytes.Compare(a[:], b[:]) })
	out := all[:0]
	for i := range list {
		if i == 0 || !bytes.Equal(list[i][:16], list[i-1][:16]) {
			out = append(out, list[i][:]...)
		}
	}
	t.records = out
}

// loadTable reads the file of a table.
func loadTable(path string) (*pageTable, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b)%recordSize != 0 {
		return nil, fmt.Errorf("%s: %w", path, ErrCorrupt)
	}
	return &pageTable{b}, nil
}

// save is for this life of the shim only, so it is not synced.
func (t *pageTable) save(path string) error { return os.WriteFile(path, t.records, 0o600) }

// eachPage calls fn with each page of r, which has size bytes.
func eachPage(ctx context.Context, r io.Reader, size int64, fn func(page []byte) error) error {
	buf := make([]byte, 64*pageSize)
	for size > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		chunk := buf[:min(size, int64(len(buf)))]
		if _, err := io.ReadFull(r, chunk); err != nil {
			return cutShort(err)
		}
		size -= int64(len(chunk))
		for p := range slices.Chunk(chunk, pageSize) {
			if err := fn(p); err != nil {
				return err
			}
		}
	}
	return nil
}
