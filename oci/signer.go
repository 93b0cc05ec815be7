package oci

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Blocks of PEM files: RFC 8410 for the keys, as OpenSSL and cosign write them.
const (
	pemPrivate = "PRIVATE KEY"
	pemPublic  = "PUBLIC KEY"
)

// maxKeyFile bounds what is read as a key, in bytes.
const maxKeyFile = 64 << 10

// Signer signs manifests.
type Signer struct {
	key ed25519.PrivateKey
	id  string
}

// OpenSigner reads a private key. If there is none it makes one, with the
// directory, both for the owner only, and the public key beside it with the
// extension .pub. Several processes may do that at a time: one key results.
//
// Errors: ErrKey.
func OpenSigner(path string) (*Signer, error) {
	b, err := readKeyFile(path, true)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(path); err != nil {
			return nil, fmt.Errorf("make the signing key %s: %w", path, err)
		}
		b, err = readKeyFile(path, true)
	}
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != pemPrivate || len(rest) > 0 {
		return nil, fmt.Errorf("%w: %s is not one block of PEM with a %s", ErrKey, path, pemPrivate)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKey, path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: %s is not an Ed25519 key", ErrKey, path)
	}
	id, _, err := describeKey(key.Public())
	return &Signer{key: key, id: id}, err
}

// KeyID names the public key: the SHA-256 of its SubjectPublicKeyInfo.
func (s *Signer) KeyID() string { return s.id }

// PublicKey in PEM.
func (s *Signer) PublicKey() ([]byte, error) {
	_, b, err := describeKey(s.key.Public())
	return b, err
}

func (s *Signer) sign(message []byte) []byte { return ed25519.Sign(s.key, message) }

func describeKey(public any) (id string, file []byte, err error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:]), pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: der}), nil
}

// makeKey makes a key unless somebody else does at the same time.
func makeKey(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	_, file, err := describeKey(public)
	if err != nil {
		return err
	}
	made, err := placeNew(path, pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: der}), 0o600)
	if err != nil || !made {
		return err
	}
	if err := os.Remove(path + ".pub"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = placeNew(path+".pub", file, 0o644)
	return err
}

// placeNew makes a durable file appear at path, all at once; false if there is
// one already.
func placeNew(path string, data []byte, mode fs.FileMode) (made bool, err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return false, err
	}
	err = os.Link(tmp.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, syncOne(filepath.Dir(path))
}

// readKeyFile reads a file of keys. One with secrets must be readable for its
// owner only.
func readKeyFile(path string, secret bool) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	switch {
	case !st.Mode().IsRegular() || st.Size() > maxKeyFile:
		return nil, fmt.Errorf("%w: %s is not a file of at most %d bytes", ErrKey, path, maxKeyFile)
	case secret && st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%w: %s can be read by others (mode %04o): chmod 600", ErrKey, path, st.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return b, nil
}
