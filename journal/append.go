package journal

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// The Append methods encode a record into the batch. They do no I/O, and do
// not allocate once the batch has reached its usual size. They return the
// position of the record, or 0 if it was refused: then Commit returns why
// (ErrRecordTooLarge, ErrBatchFull, ErrClosed).

// AppendOpen records that a connection was opened.
func (j *Journal) AppendOpen(o ConnOpen) Position {
	if len(o.Client.Addr().Zone()) > maxZone || len(o.Server.Addr().Zone()) > maxZone {
		j.fail(fmt.Errorf("address zone of connection %d: %w", o.Conn, ErrRecordTooLarge))
		return 0
	}
	if !j.admit(0) {
		return 0
	}
	start := j.begin(TypeOpen)
	j.batch.buf = appendOpen(j.batch.buf, o)
	return j.finish(start)
}

// AppendInput records input that was read from the client side: payload, whose
// first byte is byte offset of the connection's input, read when outPos bytes
// of its output had been sent.
func (j *Journal) AppendInput(conn uint32, offset, outPos uint64, payload []byte) Position {
	if !j.admit(len(payload)) {
		return 0
	}
	start := j.begin(TypeInput)
	b := binary.AppendUvarint(j.batch.buf, uint64(conn))
	b = binary.AppendUvarint(b, offset)
	b = binary.AppendUvarint(b, outPos)
	j.batch.buf = append(b, payload...)
	return j.finish(start)
}

// AppendConsumed records that the application has taken the connection's input
// up to offset. The order of these records is the order of processing.
func (j *Journal) AppendConsumed(conn uint32, offset uint64) Position {
	return j.appendOffset(TypeConsumed, conn, offset)
}

// appendOffset records something that happened at an offset of a stream.
func (j *Journal) appendOffset(t Type, conn uint32, offset uint64) Position {
	if !j.admit(0) {
		return 0
	}
	start := j.begin(t)
	b := binary.AppendUvarint(j.batch.buf, uint64(conn))
	j.batch.buf = binary.AppendUvarint(b, offset)
	return j.finish(start)
}

// AppendOutput records the fingerprint of length bytes of output from offset:
// their xxhash64 with seed 0.
func (j *Journal) AppendOutput(conn uint32, offset uint64, length uint32, hash uint64) Position {
	if !j.admit(0) {
		return 0
	}
	start := j.begin(TypeOutput)
	b := binary.AppendUvarint(j.batch.buf, uint64(conn))
	b = binary.AppendUvarint(b, offset)
	b = binary.AppendUvarint(b, uint64(length))
	j.batch.buf = binary.LittleEndian.AppendUint64(b, hash)
	return j.finish(start)
}

// AppendOutputBytes records output itself, from offset.
func (j *Journal) AppendOutputBytes(conn uint32, offset uint64, payload []byte) Position {
	if !j.admit(len(payload)) {
		return 0
	}
	start := j.begin(TypeOutputBytes)
	b := binary.AppendUvarint(j.batch.buf, uint64(conn))
	b = binary.AppendUvarint(b, offset)
	j.batch.buf = append(b, payload...)
	return j.finish(start)
}

// AppendClose records that one direction of a connection ended after offset
// bytes, or both by a reset.
func (j *Journal) AppendClose(conn uint32, dir Direction, kind CloseKind, offset uint64) Position {
	if !j.admit(0) {
		return 0
	}
	start := j.begin(TypeClose)
	b := binary.AppendUvarint(j.batch.buf, uint64(conn))
	b = append(b, byte(dir&1), byte(kind&1))
	j.batch.buf = binary.AppendUvarint(b, offset)
	return j.finish(start)
}

// AppendUrgent records that the byte of input at offset, which is recorded
// already, was sent as urgent data.
func (j *Journal) AppendUrgent(conn uint32, offset uint64) Position {
	return j.appendOffset(TypeUrgent, conn, offset)
}

// AppendFailed records how a connection that the application opened failed: with
// Linux's errno.
func (j *Journal) AppendFailed(conn, errno uint32) Position {
	if !j.admit(0) {
		return 0
	}
	start := j.begin(TypeFailed)
	b := binary.AppendUvarint(j.batch.buf, uint64(conn))
	j.batch.buf = binary.AppendUvarint(b, uint64(errno))
	return j.finish(start)
}

// AppendRepeated records that the application has made the request again that
// begins at offset of the output of a connection that it had opened, after a
// recovery and on another connection: its records stand behind that one's.
func (j *Journal) AppendRepeated(conn uint32, offset uint64) Position {
	return j.appendOffset(TypeRepeated, conn, offset)
}

// AppendDatagram records a datagram that came when the application had sent that
// many of its own. Its position names it in later records.
func (j *Journal) AppendDatagram(source, dest netip.AddrPort, sent uint64, payload []byte) Position {
	if len(source.Addr().Zone()) > maxZone || len(dest.Addr().Zone()) > maxZone {
		j.fail(fmt.Errorf("address zone of a datagram: %w", ErrRecordTooLarge))
		return 0
	}
	if !j.admit(len(payload)) {
		return 0
	}
	start := j.begin(TypeDatagram)
	b := appendAddr(appendAddr(j.batch.buf, source), dest)
	b = binary.AppendUvarint(b, sent)
	j.batch.buf = append(b, payload...)
	return j.finish(start)
}

// AppendDatagramTaken records that the application has taken the datagram with
// that position. The order of these and of the Consumed records is the order of
// processing.
func (j *Journal) AppendDatagramTaken(of Position) Position {
	if !j.admit(0) {
		return 0
	}
	start := j.begin(TypeDatagramTaken)
	j.batch.buf = binary.AppendUvarint(j.batch.buf, uint64(of))
	return j.finish(start)
}

// AppendDatagramSent records the fingerprint of a datagram that the application
// sent: the xxhash64 of its ends and that of its payload.
func (j *Journal) AppendDatagramSent(flow, hash uint64) Position {
	if !j.admit(0) {
		return 0
	}
	start := j.begin(TypeDatagramSent)
	b := binary.LittleEndian.AppendUint64(j.batch.buf, flow)
	j.batch.buf = binary.LittleEndian.AppendUint64(b, hash)
	return j.finish(start)
}

// AppendMark records a mark that concerns the given checkpoint.
func (j *Journal) AppendMark(kind MarkKind, checkpoint uint64) Position {
	if !j.admit(0) {
		return 0
	}
	start := j.begin(TypeMark)
	b := append(j.batch.buf, byte(kind))
	j.batch.buf = binary.AppendUvarint(b, checkpoint)
	return j.finish(start)
}

// admit makes room for a record with a payload of n bytes, or refuses it.
func (j *Journal) admit(n int) bool {
	size := commitFrame + frameSize + maxFields + n + 2*j.overhead
	switch {
	case j.closed:
		return false
	case n > MaxPayload:
		j.fail(fmt.Errorf("payload of %d bytes: %w", n, ErrRecordTooLarge))
		return false
	case len(j.batch.buf)+size > j.opts.MaxBatchBytes:
		j.fail(ErrBatchFull)
		return false
	}
	j.batch.reserve(size)
	return true
}

// begin starts a record, and the batch before it if need be. It returns where
// in the batch the record starts.
func (j *Journal) begin(t Type) int {
	if !j.inBatch {
		j.inBatch = true
		j.batch.commitRecord(j.opts.Now().UnixNano(), j.overhead)
	}
	start := len(j.batch.buf)
	j.batch.buf = appendFrame(j.batch.buf, t)
	return start
}

func (j *Journal) finish(start int) Position {
	j.batch.buf = append(j.batch.buf, zeroTag[:j.overhead]...)
	finishFrame(j.batch.buf[start:])
	j.pending++
	return j.batch.base + Position(start)
}

// fail makes Commit return err until Heal; the first failure stays.
func (j *Journal) fail(err error) {
	if j.err == nil {
		j.err = fmt.Errorf("journal: %w", err)
	}
}
