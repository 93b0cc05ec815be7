package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Ciphers, as in the header of a segment.
const (
	cipherNone = 0
	cipherAES  = 1 // AES-256-GCM
)

const (
	tagSize   = 16
	nonceSize = 12
	keyIDSize = 8
	saltSize  = 32
)

var zeroTag [tagSize]byte

// overhead is what each body of the segment has behind its plain form, in bytes.
func (h *header) overhead() int {
	if h.cipher == cipherNone {
		return 0
	}
	return tagSize
}

// records returns the cipher for the records of the segment, or nil if they are
// in the clear. Its key is used for this life of this segment only, since it is
// derived from all of the header, which has a random salt; within the segment
// the nonce is the record's position.
//
// Errors: ErrNoKey, ErrWrongKey.
func (h *header) records(k *Key) (*recordCipher, error) {
	if h.cipher == cipherNone {
		return nil, nil
	}
	if k == nil {
		return nil, ErrNoKey
	}
	id, err := k.id()
	if err != nil {
		return nil, err
	}
	if id != h.keyID {
		return nil, fmt.Errorf("%w: the segment's is %x, this is %v", ErrWrongKey, h.keyID, k)
	}
	info := infoSegment + string(h.encode()[headerFields:])
	secret, err := hkdf.Key(sha256.New, k.secret[:], h.keySalt[:], info, KeySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	clear(secret)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &recordCipher{aead: aead}, err
}

// recordCipher encrypts and decrypts the bodies of records. It belongs to one
// goroutine.
type recordCipher struct {
	aead  cipher.AEAD
	nonce [nonceSize]byte
}

func (c *recordCipher) at(pos Position) []byte {
	binary.LittleEndian.PutUint64(c.nonce[:], uint64(pos))
	return c.nonce[:]
}

// seal appends a frame, which has room for the tag at its end, to dst. Length and
// type stay readable and are authenticated; the checksum is that of what dst gets.
func (c *recordCipher) seal(dst []byte, salt uint64, pos Position, frame []byte) []byte {
	start := len(dst)
	dst = append(dst, frame[:frameSize]...)
	dst = c.aead.Seal(dst, c.at(pos), frame[frameSize:len(frame)-tagSize], frame[4:frameSize])
	seal(salt, pos, dst[start:])
	return dst
}

// open appends the body of a frame in its plain form to dst.
func (c *recordCipher) open(dst []byte, pos Position, fr frame) ([]byte, error) {
	return c.aead.Open(dst, c.at(pos), fr.body, fr.head[4:])
}
