package journal

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// KeySize is the size of a key in bytes.
const KeySize = 32

// Key encrypts the records of a journal (AES-256-GCM). Without it they are lost.
type Key struct {
	secret [KeySize]byte
}

// NewKey returns a random key.
func NewKey() (*Key, error) {
	k := &Key{}
	if _, err := rand.Read(k.secret[:]); err != nil {
		return nil, fmt.Errorf("journal key: %w", err)
	}
	return k, nil
}

// ParseKey reads the form that Text returns.
func ParseKey(text []byte) (*Key, error) {
	digits := strings.TrimSpace(string(text))
	k := &Key{}
	if len(digits) != hex.EncodedLen(KeySize) {
		return nil, fmt.Errorf("journal key: %d characters: want %d hexadecimal digits", len(digits), hex.EncodedLen(KeySize))
	}
	if _, err := hex.Decode(k.secret[:], []byte(digits)); err != nil {
		return nil, errors.New("journal key: want hexadecimal digits only")
	}
	return k, nil
}

// Text returns the secret as a line of hexadecimal digits.
func (k *Key) Text() []byte {
	return append(hex.AppendEncode(nil, k.secret[:]), '\n')
}

// String names the key without giving it away.
func (k *Key) String() string {
	id, err := k.id()
	if err != nil {
		return "journal key"
	}
	return fmt.Sprintf("journal key %x", id)
}

// GoString is String: a %#v must not print the secret either.
func (k *Key) GoString() string { return k.String() }

// Destroy overwrites the secret. Journals that are open with it go on.
func (k *Key) Destroy() { clear(k.secret[:]) }

const (
	infoKeyID   = "crsc journal 2 key id"
	infoSegment = "crsc journal 2 segment"
)

// id is in the header of each segment, so that a wrong key is found to be one.
func (k *Key) id() (id [keyIDSize]byte, err error) {
	b, err := hkdf.Key(sha256.New, k.secret[:], nil, infoKeyID, keyIDSize)
	copy(id[:], b)
	return id, err
}
