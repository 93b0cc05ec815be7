package layer

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// kind is the type of an entry, as stored.
type kind uint8

const (
	kindDir kind = iota + 1
	kindRegular
	kindSymlink
	kindFifo
	kindSocket
	kindChar
	kindBlock
	kindLink  // another name of an earlier entry
	kindMount // a mount point, neither captured nor rolled back
	kindEnd
)

// kindOf returns 0 for a type that Linux does not have.
func kindOf(mode uint16) kind {
	switch uint32(mode) & unix.S_IFMT {
	case unix.S_IFDIR:
		return kindDir
	case unix.S_IFREG:
		return kindRegular
	case unix.S_IFLNK:
		return kindSymlink
	case unix.S_IFIFO:
		return kindFifo
	case unix.S_IFSOCK:
		return kindSocket
	case unix.S_IFCHR:
		return kindChar
	case unix.S_IFBLK:
		return kindBlock
	}
	return 0
}

// entry is one name in the tree. Its slices may alias a manifest.
type entry struct {
	depth        int // 0 is the root, which has no name
	kind         kind
	flags        uint8 // flagImmutable | flagAppend
	mode         uint16
	uid, gid     uint32
	major, minor uint32
	size         int64 // bytes, of regular files
	mtime, atime timestamp
	link         uint32 // kindLink: the entry that it is another name of
	name         []byte
	target       []byte // kindSymlink
	extents      []extent
	xattrs       []xattr
}

const (
	flagImmutable = 1 << iota
	flagAppend
)

// timestamp is not an int64 of nanoseconds: a container can set years that such
// a number can't hold.
type timestamp struct {
	sec  int64
	nsec uint32
}

// extent is a run of bytes of a file, and where the snapshot has it.
type extent struct {
	off, length int64 // in the file
	pack        uint32
	packOff     int64
}

type xattr struct{ name, value []byte }

// whiteout reports whether e is overlayfs's mark of a deleted name. All of them
// may be links to one inode that also the work directory holds.
func (e *entry) whiteout() bool { return e.kind == kindChar && e.major == 0 && e.minor == 0 }

func (e *entry) bytes() int64 {
	var n int64
	for _, x := range e.extents {
		n += x.length
	}
	return n
}

const (
	entryHeaderSize = 80
	extentSize      = 32
	xattrHeaderSize = 8
)

func appendEntry(b []byte, e *entry) []byte {
	start := len(b)
	le := binary.LittleEndian
	b = le.AppendUint32(b, 0) // the length, below
	b = le.AppendUint16(b, uint16(e.depth))
	b = append(b, byte(e.kind), e.flags)
	b = le.AppendUint16(b, e.mode)
	b = le.AppendUint16(b, uint16(len(e.name)))
	b = le.AppendUint32(b, e.uid)
	b = le.AppendUint32(b, e.gid)
	b = le.AppendUint32(b, e.major)
	b = le.AppendUint32(b, e.minor)
	b = le.AppendUint32(b, e.link)
	b = le.AppendUint64(b, uint64(e.size))
	b = le.AppendUint64(b, uint64(e.mtime.sec))
	b = le.AppendUint64(b, uint64(e.atime.sec))
	b = le.AppendUint32(b, e.mtime.nsec)
	b = le.AppendUint32(b, e.atime.nsec)
	b = le.AppendUint32(b, uint32(len(e.target)))
	b = le.AppendUint32(b, uint32(len(e.extents)))
	b = le.AppendUint32(b, uint32(len(e.xattrs)))
	b = le.AppendUint32(b, 0)
	b = append(b, e.name...)
	b = append(b, e.target...)
	for _, x := range e.extents {
		b = appendExtent(b, x)
	}
	for _, x := range e.xattrs {
		b = le.AppendUint32(b, uint32(len(x.name)))
		b = le.AppendUint32(b, uint32(len(x.value)))
		b = append(b, x.name...)
		b = append(b, x.value...)
	}
	le.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

func appendExtent(b []byte, x extent) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(x.off))
	b = le.AppendUint64(b, uint64(x.length))
	b = le.AppendUint64(b, uint64(x.packOff))
	b = le.AppendUint32(b, x.pack)
	return le.AppendUint32(b, 0)
}

// record is the encoded form of an entry, of which only the lengths have been
// checked. It gives what a walk looks at without decoding the rest.
type record []byte

var errRecord = errors.New("entry does not fit its length")

// nextRecord returns the first record in b.
func nextRecord(b []byte) (record, error) {
	if len(b) < entryHeaderSize {
		return nil, errRecord
	}
	n := binary.LittleEndian.Uint32(b)
	if n < entryHeaderSize || uint64(n) > uint64(len(b)) {
		return nil, errRecord
	}
	r := record(b[:n:n])
	fixed := uint64(entryHeaderSize) + uint64(r.nameLen()) + uint64(r.targetLen()) + uint64(r.extentCount())*extentSize
	if fixed > uint64(n) {
		return nil, errRecord
	}
	return r, nil
}

func (r record) u32(at int) uint32   { return binary.LittleEndian.Uint32(r[at:]) }
func (r record) depth() int          { return int(binary.LittleEndian.Uint16(r[4:])) }
func (r record) kind() kind          { return kind(r[6]) }
func (r record) flags() uint8        { return r[7] }
func (r record) mode() uint16        { return binary.LittleEndian.Uint16(r[8:]) }
func (r record) nameLen() int        { return int(binary.LittleEndian.Uint16(r[10:])) }
func (r record) link() uint32        { return r.u32(28) }
func (r record) size() int64         { return int64(binary.LittleEndian.Uint64(r[32:])) }
func (r record) targetLen() uint32   { return r.u32(64) }
func (r record) extentCount() uint32 { return r.u32(68) }
func (r record) name() []byte        { return r[entryHeaderSize : entryHeaderSize+r.nameLen()] }
func (r record) mtime() timestamp {
	return timestamp{int64(binary.LittleEndian.Uint64(r[40:])), r.u32(56)}
}

func (r record) extent(i int) extent {
	b := r[entryHeaderSize+r.nameLen()+int(r.targetLen())+i*extentSize:]
	le := binary.LittleEndian
	return extent{
		off: int64(le.Uint64(b)), length: int64(le.Uint64(b[8:])),
		packOff: int64(le.Uint64(b[16:])), pack: le.Uint32(b[24:]),
	}
}

// decode fills e, whose slices then alias r.
func (r record) decode(e *entry) error {
	*e = entry{
		depth: r.depth(), kind: r.kind(), flags: r.flags(), mode: r.mode(),
		uid: r.u32(12), gid: r.u32(16), major: r.u32(20), minor: r.u32(24), link: r.link(),
		size: r.size(), mtime: r.mtime(), name: r.name(),
		atime:   timestamp{int64(binary.LittleEndian.Uint64(r[48:])), r.u32(60)},
		extents: e.extents[:0], xattrs: e.xattrs[:0],
	}
	at := entryHeaderSize + r.nameLen()
	e.target = r[at : at+int(r.targetLen())]
	for i := range int(r.extentCount()) {
		e.extents = append(e.extents, r.extent(i))
	}
	b := r[at+len(e.target)+len(e.extents)*extentSize:]
	for range r.u32(72) {
		if len(b) < xattrHeaderSize {
			return errRecord
		}
		nameLen, valueLen := uint64(b.u32(0)), uint64(b.u32(4))
		b = b[xattrHeaderSize:]
		if nameLen+valueLen > uint64(len(b)) {
			return errRecord
		}
		e.xattrs = append(e.xattrs, xattr{b[:nameLen], b[nameLen : nameLen+valueLen]})
		b = b[nameLen+valueLen:]
	}
	if len(b) != 0 || r.u32(76) != 0 {
		return errRecord
	}
	return nil
}
