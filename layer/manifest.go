package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

const (
	manifestName    = "manifest"
	manifestMagic   = "crsclayr"
	manifestVersion = 1

	manifestHeaderSize = 64
	packRecordSize     = 24
	maxPacks           = 1024
)

// manifest is the decoded file of that name. The entries stay encoded.
type manifest struct {
	boot  [16]byte // of the kernel that ran when the snapshot was made
	packs []packInfo
	count int    // of entries
	body  []byte // the entries, in the order of the walk
}

// packInfo describes a pack file of the snapshot.
type packInfo struct {
	id   uint32
	size int64 // bytes, of the file
	live int64 // bytes, of what the manifest refers to
}

func (m *manifest) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, manifestHeaderSize, manifestHeaderSize+len(m.packs)*packRecordSize+len(m.body))
	copy(b, manifestMagic)
	le.PutUint16(b[8:], manifestVersion)
	le.PutUint16(b[10:], manifestHeaderSize)
	copy(b[16:], m.boot[:])
	le.PutUint64(b[32:], uint64(m.count))
	le.PutUint64(b[40:], uint64(len(m.body)))
	le.PutUint32(b[48:], uint32(len(m.packs)))
	for _, p := range m.packs {
		b = le.AppendUint32(b, p.id)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, uint64(p.size))
		b = le.AppendUint64(b, uint64(p.live))
	}
	b = append(b, m.body...)
	le.PutUint32(b[12:], fileChecksum(b))
	return b
}

// fileChecksum covers a manifest or identity file without the checksum itself.
func fileChecksum(b []byte) uint32 {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:])
}

func corrupt(file string, offset int, reason string) error {
	return &CorruptionError{File: file, Offset: int64(offset), Reason: reason}
}

// checkFile checks what manifest and identity files begin with.
func checkFile(b []byte, file, magic string, version, headerSize int) error {
	le := binary.LittleEndian
	switch {
	case len(b) < headerSize:
		return corrupt(file, len(b), "file is too short")
	case string(b[:8]) != magic:
		return corrupt(file, 0, "wrong magic number")
	case le.Uint32(b[12:]) != fileChecksum(b):
		return corrupt(file, 12, "wrong checksum")
	case int(le.Uint16(b[8:])) != version:
		return fmt.Errorf("%s: %w: %d, this build reads %d", file, ErrUnsupportedVersion, le.Uint16(b[8:]), version)
	case int(le.Uint16(b[10:])) != headerSize:
		return corrupt(file, 10, "wrong header size")
	}
	return nil
}

// decodeManifest reads and validates a whole manifest, which then aliases b.
func decodeManifest(b []byte) (*manifest, error) {
	if err := checkFile(b, manifestName, manifestMagic, manifestVersion, manifestHeaderSize); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	m := &manifest{}
	copy(m.boot[:], b[16:])
	count, bodyLen, packs := le.Uint64(b[32:]), le.Uint64(b[40:]), le.Uint32(b[48:])
	if packs > maxPacks || bodyLen > maxManifest || count > bodyLen/entryHeaderSize ||
		uint64(len(b)) != manifestHeaderSize+uint64(packs)*packRecordSize+bodyLen {
		return nil, corrupt(manifestName, 32, "sizes do not add up")
	}
	m.count = int(count)
	at := manifestHeaderSize
	for range packs {
		p := packInfo{id: le.Uint32(b[at:]), size: int64(le.Uint64(b[at+8:])), live: int64(le.Uint64(b[at+16:]))}
		if len(m.packs) > 0 && m.packs[len(m.packs)-1].id >= p.id || p.size < 0 || p.live < 0 {
			return nil, corrupt(manifestName, at, "pack table is out of order")
		}
		m.packs = append(m.packs, p)
		at += packRecordSize
	}
	m.body = b[at:]
	if err := m.validate(at); err != nil {
		return nil, err
	}
	return m, nil
}

// pack returns the description of a pack, or nil.
func (m *manifest) pack(id uint32) *packInfo {
	i, ok := slices.BinarySearchFunc(m.packs, id, func(p packInfo, id uint32) int {
		return int(int64(p.id) - int64(id))
	})
	if !ok {
		return nil
	}
	return &m.packs[i]
}

// validate checks every entry and their order, so that nothing later can be led
// out of the tree or out of bounds. base is where the body begins in the file.
func (m *manifest) validate(base int) error {
	var (
		rest  = m.body
		names = [][]byte{} // the last name at each depth
		kinds = make([]kind, 0, m.count)
		e     entry
	)
	for len(rest) > 0 {
		at := base + len(m.body) - len(rest)
		r, err := nextRecord(rest)
		if err == nil {
			err = r.decode(&e)
		}
		if err == nil {
			err = e.validate(m, kinds)
		}
		if err != nil {
			return corrupt(manifestName, at, err.Error())
		}
		switch {
		case len(kinds) == 0 && (e.depth != 0 || e.kind != kindDir),
			len(kinds) > 0 && (e.depth == 0 || e.depth > len(names)):
			return corrupt(manifestName, at, "entry has no parent")
		case e.depth == len(names) && len(kinds) > 0 && kinds[len(kinds)-1] != kindDir:
			return corrupt(manifestName, at, "parent is not a directory")
		case e.depth < len(names) && bytes.Compare(names[e.depth], e.name) >= 0:
			return corrupt(manifestName, at, "names are out of order")
		}
		names = append(names[:e.depth], e.name)
		kinds = append(kinds, e.kind)
		rest = rest[len(r):]
	}
	if len(kinds) != m.count || m.count == 0 {
		return corrupt(manifestName, 32, "wrong number of entries")
	}
	return nil
}

// validate checks an entry by itself; kinds are those of the earlier ones.
func (e *entry) validate(m *manifest, kinds []kind) error {
	switch {
	case e.kind == 0 || e.kind >= kindEnd:
		return errors.New("unknown kind")
	case e.depth > maxDepth:
		return errors.New("too deep")
	case e.depth > 0 && !validName(e.name) || e.depth == 0 && len(e.name) > 0:
		return fmt.Errorf("name %q is not allowed", e.name)
	case e.kind == kindSymlink && (len(e.target) == 0 || len(e.target) >= 4096 || bytes.IndexByte(e.target, 0) >= 0),
		e.kind != kindSymlink && len(e.target) > 0:
		return errors.New("bad link target")
	case e.kind == kindLink && (int64(e.link) >= int64(len(kinds)) || !linkable(kinds[e.link])):
		return errors.New("bad hard link")
	case e.kind != kindRegular && len(e.extents) > 0, e.size < 0:
		return errors.New("bad size")
	case e.mtime.nsec > 999_999_999 || e.atime.nsec > 999_999_999:
		return errors.New("bad time")
	}
	for _, x := range e.xattrs {
		if len(x.name) == 0 || len(x.name) > 255 || bytes.IndexByte(x.name, 0) >= 0 || len(x.value) > 65536 {
			return errors.New("bad extended attribute")
		}
	}
	var end int64
	for _, x := range e.extents {
		p := m.pack(x.pack)
		if p == nil || x.length <= 0 || x.off < end || x.off > e.size-x.length ||
			x.packOff < 0 || x.length > p.size || x.packOff > p.size-x.length {
			return errors.New("bad extent")
		}
		end = x.off + x.length
	}
	return nil
}

func linkable(k kind) bool { return k != kindDir && k != kindLink && k != kindMount }

// validName reports whether a name is a single component other than "." and
// "..".
func validName(name []byte) bool {
	return len(name) > 0 && len(name) <= 255 && bytes.IndexByte(name, '/') < 0 && bytes.IndexByte(name, 0) < 0 &&
		!bytes.Equal(name, []byte(".")) && !bytes.Equal(name, []byte(".."))
}
