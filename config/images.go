package config

import (
	"path/filepath"
	"strconv"

	"filippo.io/age"
)

// Images says how the node treats checkpoint images: what it signs them with,
// whose it believes, and who can read them.
type Images struct {
	// SigningKey is the absolute path of the node's private key, which is made
	// when it is needed first.
	SigningKey string
	// TrustedKeys are absolute paths of public keys of others.
	TrustedKeys []string
	// AllowUnsigned: images without a signature of a trusted key are restored.
	AllowUnsigned bool
	// EncryptFor are the age recipients that can read images; none: images are
	// not encrypted.
	EncryptFor []string
	// IdentityFile is the absolute path of the age identities with which this
	// node reads images; empty: it reads none that is encrypted.
	IdentityFile string
}

// nodeImages is the TOML form of Images.
type nodeImages struct {
	SigningKey    string   `toml:"signing_key"`
	TrustedKeys   []string `toml:"trusted_keys"`
	AllowUnsigned bool     `toml:"allow_unsigned"`
	EncryptFor    []string `toml:"encrypt_for"`
	IdentityFile  string   `toml:"identity_file"`
}

// keysDir is below the state directory. No namespace of containerd begins with
// a dot.
const keysDir = ".keys"

func (n *Node) readImages(file *nodeFile) error {
	f := &file.Images
	n.Images = Images{
		SigningKey: f.SigningKey, TrustedKeys: f.TrustedKeys, AllowUnsigned: f.AllowUnsigned,
		EncryptFor: f.EncryptFor, IdentityFile: f.IdentityFile,
	}
	if f.SigningKey == "" {
		n.Images.SigningKey = filepath.Join(n.StateDir, keysDir, "signing.pem")
	}
	if err := checkFile("images.signing_key", n.Images.SigningKey); err != nil {
		return err
	}
	for i, path := range f.TrustedKeys {
		if err := checkFile("images.trusted_keys["+strconv.Itoa(i)+"]", path); err != nil {
			return err
		}
	}
	if f.IdentityFile != "" {
		if err := checkFile("images.identity_file", f.IdentityFile); err != nil {
			return err
		}
	}
	for i, r := range f.EncryptFor {
		if _, err := age.ParseX25519Recipient(r); err != nil {
			return &KeyError{Key: "images.encrypt_for[" + strconv.Itoa(i) + "]", Value: r, Form: "a public key of age-keygen, which begins with age1", Err: ErrMalformed}
		}
	}
	n.base.Images = n.Images
	return nil
}

func checkFile(key, path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return &KeyError{Key: key, Value: path, Form: "the absolute path of a file, without . and ..", Err: ErrMalformed}
	}
	return nil
}
