package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/crsc-io/crsc/internal/vfs"
)

const (
	formatVersion = 2
	headerSize    = 96
	headerSize1   = 64 // of version 1
	headerFields  = 16 // where they start: what is before has a meaning in all versions
	// maxHeaderSize bounds the header of later versions, so that this one can
	// check the header's checksum and tell a new version from a damaged one.
	maxHeaderSize = 4096

	magic         = "crscjrnl"
	segmentSuffix = ".seg"
	spareSuffix   = ".free"
)

// header is the start of a segment file.
type header struct {
	journal uint64 // random, the same in all segments of a journal
	seq     uint64 // number of the segment, as in its name
	base    Position
	created int64 // Unix time, nanoseconds
	class   Durability
	// Of version 2.
	version uint16
	cipher  byte
	keyID   [keyIDSize]byte
	keySalt [saltSize]byte // random, for the segment's key
}

// encodedSize is in bytes.
func (h *header) encodedSize() int64 {
	if h.version == 1 {
		return headerSize1
	}
	return headerSize
}

func (h header) salt() uint64 { return salt(h.journal, h.seq) }

func (h header) encode() []byte {
	b := make([]byte, h.encodedSize())
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint16(b[8:], h.version)
	le.PutUint16(b[10:], uint16(h.encodedSize()))
	le.PutUint64(b[16:], h.journal)
	le.PutUint64(b[24:], h.seq)
	le.PutUint64(b[32:], uint64(h.base))
	le.PutUint64(b[40:], uint64(h.created))
	b[48] = byte(h.class)
	if h.version > 1 {
		b[49] = h.cipher
		copy(b[56:], h.keyID[:])
		copy(b[64:], h.keySalt[:])
	}
	le.PutUint32(b[12:], headerChecksum(b))
	return b
}

// headerChecksum covers the header without the checksum itself.
func headerChecksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:])
}

// errBlankHeader says that a header was never written: the file is shorter, or
// zeros stand there.
var errBlankHeader = errors.New("no segment header")

// decodeHeader reads a header from the first bytes of a file. It returns
// errBlankHeader, a *VersionError without a file, or an error that gives the
// reason why the header is bad.
func decodeHeader(b []byte) (header, error) {
	if len(b) < headerSize1 || len(bytes.TrimLeft(b[:headerSize1], "\x00")) == 0 {
		return header{}, errBlankHeader
	}
	le := binary.LittleEndian
	if string(b[:8]) != magic {
		return header{}, errors.New("segment header: wrong magic number")
	}
	version, size := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	if size < headerSize1 || size > len(b) || le.Uint32(b[12:]) != headerChecksum(b[:size]) {
		return header{}, errors.New("segment header: wrong checksum")
	}
	if version < 1 || version > formatVersion {
		return header{}, &VersionError{Version: version}
	}
	h := header{
		journal: le.Uint64(b[16:]),
		seq:     le.Uint64(b[24:]),
		base:    Position(le.Uint64(b[32:])),
		created: int64(le.Uint64(b[40:])),
		class:   Durability(b[48]),
		version: version,
	}
	if version > 1 && size == headerSize {
		h.cipher = b[49]
		copy(h.keyID[:], b[56:])
		copy(h.keySalt[:], b[64:])
	}
	if int64(size) != h.encodedSize() || h.cipher > cipherAES || h.class < Memory || h.class > Disk || h.base < firstPosition || h.base > 1<<62 {
		return header{}, errors.New("segment header: a field is out of range")
	}
	return h, nil
}

// readHeader reads the header of the segment file at path.
func readHeader(fs vfs.FS, path string) (header, error) {
	f, err := fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return header{}, err
	}
	if err != nil {
		return header{}, &ioError{err}
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, maxHeaderSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return header{}, &ioError{fmt.Errorf("read %s: %w", path, err)}
	}
	h, err := decodeHeader(b[:n])
	var version *VersionError
	if errors.As(err, &version) {
		version.File = path
	}
	return h, err
}

// ioError marks a failure to read, as against having read something bad.
type ioError struct{ error }

func (e *ioError) Unwrap() error { return e.error }

func segmentName(seq uint64) string { return fmt.Sprintf("%016x%s", seq, segmentSuffix) }
func spareName(seq uint64) string   { return fmt.Sprintf("%016x%s", seq, spareSuffix) }

// parseName returns the number in the name of a segment or a spare file.
func parseName(name, suffix string) (seq uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 16 || strings.ToLower(digits) != digits {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 16, 64)
	return seq, err == nil
}
