package journal

import "encoding/binary"

// frameState is what stands at an offset of a segment.
type frameState int

const (
	frameGood frameState = iota
	frameEnd             // the end mark, or the end of the file
	frameBad             // neither
)

// frame is a record before its body is decoded. The body is valid until the
// window is used again.
type frame struct {
	state  frameState
	kind   Type
	head   []byte
	body   []byte // encrypted, if the segment is
	reason string // why it is bad
	size   int64  // bytes with the frame header, as far as known
}

// readFrame reads the frame at offset off, which is position pos of a segment
// with header h.
func readFrame(w *window, h *header, off int64, pos Position) (frame, error) {
	head, err := w.bytes(off, frameSize)
	if err != nil {
		return frame{}, err
	}
	if allZero(head) {
		return frame{state: frameEnd}, nil
	}
	if len(head) < frameSize {
		return frame{state: frameBad, reason: "record header is cut off"}, nil
	}
	n := frameLength(head)
	size := int64(frameSize + n)
	if n > maxBody+h.overhead() {
		return frame{state: frameBad, reason: "record length is out of range"}, nil
	}
	b, err := w.bytes(off, frameSize+n)
	if err != nil {
		return frame{}, err
	}
	if len(b) < frameSize+n {
		return frame{state: frameBad, reason: "record reaches beyond the end of the file"}, nil
	}
	if binary.LittleEndian.Uint32(b) != checksum(h.salt(), pos, b[4:]) {
		return frame{state: frameBad, reason: "wrong record checksum", size: size}, nil
	}
	return frame{state: frameGood, kind: Type(b[7]), head: b[:frameSize], body: b[frameSize:], size: size}, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
