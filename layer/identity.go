package layer

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	identityName    = "identity"
	identityMagic   = "crscidnt"
	identityVersion = 1

	identityHeaderSize = 64
	identitySize       = 32
)

// identity is what tells an inode, and each of its states, from all others.
type identity struct {
	ino          uint64
	btime, ctime int64 // Unix time, nanoseconds; 0 if the file system has none
	trusted      bool  // as long as it is the same, so are contents and metadata
}

// identities belong to the entries of a manifest, in their order. Zero ones
// stand for what could not be recorded.
type identities struct {
	boot [16]byte
	dev  uint64
	ids  []identity
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

func identityOf(st *unix.Statx_t, trusted bool) identity {
	id := identity{ino: st.Ino, ctime: nanoseconds(st.Ctime), trusted: trusted}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.btime = nanoseconds(st.Btime)
	}
	return id
}

// sameInode reports whether st is of the inode that was recorded, in whatever
// state.
func (id identity) sameInode(st *unix.Statx_t) bool {
	now := identityOf(st, false)
	return id.ino != 0 && id.ino == now.ino && id.btime == now.btime
}

// unchanged reports whether st is of the inode that was recorded as r, in the
// same state. The ctime alone would do; the rest guards against clocks that are
// set back.
func (id identity) unchanged(r record, st *unix.Statx_t) bool {
	return id.trusted && id.sameInode(st) && id.ctime == nanoseconds(st.Ctime) &&
		r.mtime() == (timestamp{st.Mtime.Sec, st.Mtime.Nsec}) &&
		r.mode() == st.Mode&07777 && (kindOf(st.Mode) != kindRegular || r.size() == int64(st.Size))
}

func (s *identities) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, identityHeaderSize, identityHeaderSize+len(s.ids)*identitySize)
	copy(b, identityMagic)
	le.PutUint16(b[8:], identityVersion)
	le.PutUint16(b[10:], identityHeaderSize)
	copy(b[16:], s.boot[:])
	le.PutUint64(b[32:], s.dev)
	le.PutUint64(b[40:], uint64(len(s.ids)))
	for _, id := range s.ids {
		var flags uint64
		if id.trusted {
			flags = 1
		}
		b = le.AppendUint64(b, id.ino)
		b = le.AppendUint64(b, uint64(id.btime))
		b = le.AppendUint64(b, uint64(id.ctime))
		b = le.AppendUint64(b, flags)
	}
	le.PutUint32(b[12:], fileChecksum(b))
	return b
}

func decodeIdentities(b []byte, count int) (*identities, error) {
	if err := checkFile(b, identityName, identityMagic, identityVersion, identityHeaderSize); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if le.Uint64(b[40:]) != uint64(count) || len(b) != identityHeaderSize+count*identitySize {
		return nil, corrupt(identityName, 40, fmt.Sprintf("not for %d entries", count))
	}
	s := &identities{dev: le.Uint64(b[32:]), ids: make([]identity, count)}
	copy(s.boot[:], b[16:])
	for i := range s.ids {
		r := b[identityHeaderSize+i*identitySize:]
		s.ids[i] = identity{
			ino: le.Uint64(r), btime: int64(le.Uint64(r[8:])), ctime: int64(le.Uint64(r[16:])),
			trusted: le.Uint64(r[24:])&1 != 0,
		}
	}
	return s, nil
}

// distrust makes nothing count as unchanged; inodes can still be recognised.
func (s *identities) distrust() {
	for i := range s.ids {
		s.ids[i].trusted = false
	}
}
