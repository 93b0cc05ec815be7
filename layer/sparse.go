package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math"
	"path"
	"strconv"
)

// Sparse files of a tar are entries of GNU's PAX format 1.0 (GNU tar's manual,
// "Storing Sparse Files"), which archive/tar reads but does not write.
const (
	tarBlock = 512
	// minSparse is what holes have to save in a file to be worth a map, in bytes.
	minSparse = 1 << 20
	// minHole is the smallest hole that a map lists, in bytes.
	minHole = 4096
	noHole  = math.MaxInt64
	// maxIslands keeps a map below the 1 MiB that archive/tar reads: two numbers of
	// 19 digits and their line ends each.
	maxIslands = 26000
	// maxZeros bounds the zeros that stand for holes without a place in the map, in
	// bytes for one file.
	maxZeros = 16 << 30

	sparseRecord = "GNU.sparse."
	// A key that archive/tar writes, in the place of the one that it does not.
	sparseStandIn = "CRS.sparse."
)

// island is what a sparse file has between two holes.
type island struct{ off, end int64 }

// islands is a file without its holes of at least hole bytes.
type islands struct {
	list   []island
	hole   int64
	stored int64 // bytes, zeros of smaller holes among them
}

// islandsOf leaves out the largest holes if there are more than a map can list.
func islandsOf(e *entry) islands {
	for hole := int64(minHole); ; hole *= 2 {
		m := islands{hole: hole}
		for _, x := range e.extents {
			if m.add(x.off, x.off+x.length); len(m.list) > maxIslands {
				break
			}
		}
		// GNU tar takes a file's size from the end of the last island.
		if m.add(e.size, e.size); len(m.list) <= maxIslands {
			return m
		}
	}
}

// add appends what lies beyond all that was added.
func (m *islands) add(off, end int64) {
	last := len(m.list) - 1
	before := int64(0)
	if last >= 0 {
		before = m.list[last].end
	}
	switch {
	case off-before >= m.hole:
		m.list = append(m.list, island{off, end})
		m.stored += end - off
		return
	case last >= 0:
		m.list[last].end = end
	default:
		m.list = append(m.list, island{0, end})
	}
	m.stored += end - before
}

// excessive reports whether most of what is stored would be holes.
func (m islands) excessive(e *entry) bool {
	zeros := e.size - e.bytes()
	if e.size-m.stored >= minSparse {
		zeros = m.stored - e.bytes()
	}
	return zeros > maxZeros
}

// table is what stands before the contents of a sparse file.
func (m islands) table() []byte {
	b := append(strconv.AppendInt(nil, int64(len(m.list)), 10), '\n')
	for _, i := range m.list {
		b = append(strconv.AppendInt(b, i.off, 10), '\n')
		b = append(strconv.AppendInt(b, i.end-i.off, 10), '\n')
	}
	return append(b, make([]byte, padding(int64(len(b))))...)
}

// sparse writes a regular file without its holes.
func (t *tarWriter) sparse(h *tar.Header, e *entry, m islands) error {
	table := m.table()
	head, err := sparseHeader(h, int64(len(table))+m.stored)
	if err != nil {
		return err
	}
	if err := t.tw.Flush(); err != nil {
		return err
	}
	for _, b := range [][]byte{head, table} {
		if _, err := t.w.Write(b); err != nil {
			return err
		}
	}
	if t.leap != nil {
		t.skip(m.stored)
		return nil
	}
	if err := t.contents(t.w, e, m.hole); err != nil {
		return err
	}
	return t.zeros(t.w, padding(m.stored))
}

// sparseHeader encodes h with the records of a sparse file that takes stored
// bytes in the archive.
func sparseHeader(h *tar.Header, stored int64) ([]byte, error) {
	s := *h
	// The name for readers that do not know sparse files.
	s.Name = path.Join(path.Dir(h.Name), "GNUSparseFile.0", path.Base(h.Name))
	s.Size = stored
	s.PAXRecords = map[string]string{
		sparseStandIn + "major": "1", sparseStandIn + "minor": "0",
		sparseStandIn + "name": h.Name, sparseStandIn + "realsize": strconv.FormatInt(h.Size, 10),
	}
	for k, v := range h.PAXRecords {
		s.PAXRecords[k] = v
	}
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&s); err != nil {
		return nil, err
	}
	// A header block, the records, and the header block of the file.
	if b.Len() < 3*tarBlock {
		return nil, fmt.Errorf("sparse file: a header of %d bytes", b.Len())
	}
	return b.Bytes(), nameRecords(b.Bytes()[tarBlock : b.Len()-tarBlock])
}

// nameRecords gives the records of sparse files their names. The checksums of a
// tar are those of header blocks alone.
func nameRecords(b []byte) error {
	for len(b) > 0 && b[0] != 0 {
		digits, _, _ := bytes.Cut(b, []byte(" "))
		n, err := strconv.Atoi(string(digits))
		if err != nil || n <= len(digits) || n > len(b) {
			return fmt.Errorf("sparse file: record of length %.20q", digits)
		}
		if record := b[len(digits)+1 : n]; bytes.HasPrefix(record, []byte(sparseStandIn)) {
			copy(record, sparseRecord)
		}
		b = b[n:]
	}
	return nil
}

// padding is what is missing from a multiple of a block, in bytes.
func padding(n int64) int64 { return -n & (tarBlock - 1) }
