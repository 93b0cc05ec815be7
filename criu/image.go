package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"google.golang.org/protobuf/proto"
)

// Image magics, from criu/include/magic.h. An image is one or two of them
// (the outer tells the sort of file), then entries: a length as a 32-bit number
// in the machine's order, and that many bytes of protobuf.
const (
	magicImage   = 0x54564319 // IMG_COMMON_MAGIC
	magicService = 0x55105940 // IMG_SERVICE_MAGIC

	magicInventory = 0x58313116
	magicStats     = 0x57093306
	magicFiles     = 0x56303138
	magicTCPStream = 0x51465506
	magicPstree    = 0x50273030
	magicPagemap   = 0x56084025
)

// Bounds of what is read. Images come from a disk that may be damaged, and
// later from registries: no length in them is believed.
const (
	maxImage = 256 << 20 // of one image file that is parsed, in bytes
	maxEntry = 16 << 20  // of one entry
)

// errStop ends readEntries early, without an error.
var errStop = errors.New("stop")

// readRaw calls fn with the bytes of each entry of an image. An image that is
// cut off in the middle of an entry is ErrCorrupt.
func readRaw(dir fs.FS, name string, magic uint32, fn func([]byte) error) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() > maxImage {
		return fmt.Errorf("%w: %s: not a regular file of at most %d bytes", ErrCorrupt, name, maxImage)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxImage))
	if err != nil {
		return err
	}
	if err := parseRaw(b, magic, fn); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func parseRaw(b []byte, magic uint32, fn func([]byte) error) error {
	off, err := header(b, magic)
	if err != nil {
		return err
	}
	for off < len(b) {
		if len(b)-off < 4 {
			return fmt.Errorf("%w: torn entry at offset %d", ErrCorrupt, off)
		}
		n := int64(binary.NativeEndian.Uint32(b[off:]))
		if n > maxEntry || n > int64(len(b)-off-4) {
			return fmt.Errorf("%w: entry of %d bytes at offset %d", ErrCorrupt, n, off)
		}
		err := fn(b[off+4 : off+4+int(n)])
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("entry at offset %d: %w", off, err)
		}
		off += 4 + int(n)
	}
	return nil
}

// header checks an image's magic and returns where its entries begin.
func header(b []byte, magic uint32) (int, error) {
	var words [2]uint32
	for i := range words {
		if len(b) >= 4*(i+1) {
			words[i] = binary.NativeEndian.Uint32(b[4*i:])
		}
	}
	switch {
	case words[0] == magic: // the inventory has no outer one
		return 4, nil
	case (words[0] == magicImage || words[0] == magicService) && words[1] == magic:
		return 8, nil
	}
	return 0, fmt.Errorf("%w: magic %#x %#x, want %#x", ErrCorrupt, words[0], words[1], magic)
}

// message is a pointer to a protobuf message of type T.
type message[T any] interface {
	*T
	proto.Message
}

// decode parses an entry as a message.
func decode[T any, P message[T]](b []byte) (P, error) {
	m := P(new(T))
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return m, nil
}

// readEntries calls fn with each entry of an image that has entries of one sort.
func readEntries[T any, P message[T]](dir fs.FS, name string, magic uint32, fn func(P) error) error {
	return readRaw(dir, name, magic, func(b []byte) error {
		m, err := decode[T, P](b)
		if err != nil {
			return err
		}
		return fn(m)
	})
}

// readSingle reads an image that has exactly one entry.
func readSingle[T any, P message[T]](dir fs.FS, name string, magic uint32) (P, error) {
	var only P
	err := readEntries(dir, name, magic, func(m P) error {
		if only != nil {
			return fmt.Errorf("%w: more than one entry", ErrCorrupt)
		}
		only = m
		return nil
	})
	if err == nil && only == nil {
		err = fmt.Errorf("%w: %s has no entry", ErrCorrupt, name)
	}
	return only, err
}
