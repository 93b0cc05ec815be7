package order

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring reads a BPF ring buffer through its mapping (Documentation/bpf/ringbuf.rst):
// a page with the consumer's position, a page with the producers', and the data
// twice in a row, so that a record is always contiguous. A record is an 8-byte
// header (length and flags u32, page offset u32) and its bytes, padded to 8.
type ring struct {
	consumer, rest []byte // the two mappings
	data           []byte
	mask           uint64
	consumed       *uint64
	produced       *uint64
}

const (
	recordBusy    = 1 << 31 // being written
	recordDiscard = 1 << 30
	recordHeader  = 8
)

func mapRing(fd, size int) (*ring, error) {
	page := os.Getpagesize()
	r := &ring{mask: uint64(size) - 1}
	var err error
	if r.consumer, err = unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map ring: %w", err)
	}
	if r.rest, err = unix.Mmap(fd, int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		unix.Munmap(r.consumer)
		return nil, fmt.Errorf("map ring: %w", err)
	}
	r.data = r.rest[page:]
	r.consumed = (*uint64)(unsafe.Pointer(&r.consumer[0]))
	r.produced = (*uint64)(unsafe.Pointer(&r.rest[0]))
	return r, nil
}

// drain hands all finished records to fn, which must not keep them.
func (r *ring) drain(fn func([]byte)) {
	end := atomic.LoadUint64(r.produced)
	at := *r.consumed // written by us alone
	start := at
	for at < end {
		i := at & r.mask
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[i])))
		if head&recordBusy != 0 {
			break // its producer is at work on another CPU; order demands to wait
		}
		n := uint64(head &^ (recordBusy | recordDiscard))
		if head&recordDiscard == 0 {
			fn(r.data[i+recordHeader : i+recordHeader+n])
		}
		at += (recordHeader + n + 7) &^ 7
	}
	if at != start {
		atomic.StoreUint64(r.consumed, at)
	}
}

func (r *ring) close() error {
	return errors.Join(unix.Munmap(r.consumer), unix.Munmap(r.rest))
}

// decode splits a record.
func decode(b []byte) (kind, port, appPort uint16, copied, peer uint32) {
	ne := binary.NativeEndian
	return ne.Uint16(b), ne.Uint16(b[2:]), ne.Uint16(b[4:]), ne.Uint32(b[8:]), ne.Uint32(b[12:])
}
