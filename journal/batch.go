package journal

import "encoding/binary"

const (
	batchStartBytes = 64 << 10
	// batchKeepBytes is the largest buffer that is kept for the next batch.
	batchKeepBytes = 16 << 20
)

// batch holds encoded frames that are not in a segment yet. Their checksums
// are set, and their bodies encrypted, when they are written, since only then is
// their segment known.
type batch struct {
	base Position // of buf[0]
	buf  []byte
}

func (b *batch) end() Position { return b.base + Position(len(b.buf)) }

// reserve makes room for n bytes, so that appending them does not allocate.
func (b *batch) reserve(n int) {
	if cap(b.buf)-len(b.buf) < n {
		b.grow(n)
	}
}

func (b *batch) grow(n int) {
	buf := make([]byte, len(b.buf), max(batchStartBytes, 2*cap(b.buf), len(b.buf)+n))
	copy(buf, b.buf)
	b.buf = buf
}

// commitRecord appends the record that starts a batch, with room for a tag of
// that many bytes.
func (b *batch) commitRecord(nanos int64, tag int) {
	start := len(b.buf)
	b.buf = appendFrame(b.buf, typeCommit)
	b.buf = binary.LittleEndian.AppendUint64(b.buf, uint64(nanos))
	b.buf = append(b.buf, zeroTag[:tag]...)
	finishFrame(b.buf[start:])
}

// whole returns how many of the first bytes of the batch are whole frames and
// together no longer than room; at least one frame if first is set.
func (b *batch) whole(room int64, first bool) int {
	n := 0
	for n < len(b.buf) {
		size := frameSize + frameLength(b.buf[n:])
		if int64(n+size) > room && !(first && n == 0) {
			break
		}
		n += size
	}
	return n
}

// seal sets the checksums of the frames in the first n bytes.
func (b *batch) seal(salt uint64, n int) {
	for i := 0; i < n; {
		size := frameSize + frameLength(b.buf[i:])
		seal(salt, b.base+Position(i), b.buf[i:i+size])
		i += size
	}
}

// encrypted appends the encrypted form of the first n bytes to dst.
func (b *batch) encrypted(dst []byte, a *activeSegment, n int) []byte {
	for i := 0; i < n; {
		size := frameSize + frameLength(b.buf[i:])
		dst = a.cipher.seal(dst, a.salt, b.base+Position(i), b.buf[i:i+size])
		i += size
	}
	return dst
}

// drop removes the first n bytes.
func (b *batch) drop(n int) {
	b.base += Position(n)
	rest := copy(b.buf, b.buf[n:])
	b.buf = b.buf[:rest]
	if rest == 0 && cap(b.buf) > batchKeepBytes {
		b.buf = nil
	}
}
