package oci

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"filippo.io/age"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Trust says whose images are believed, and which can be read. The zero value
// believes nobody.
type Trust struct {
	keys          map[string]ed25519.PublicKey // by KeyID
	identities    []age.Identity
	allowUnsigned bool
}

// TrustOptions say where the keys are.
type TrustOptions struct {
	// Own is the node's signer; nil: it has none.
	Own *Signer
	// Keys are files with public keys in PEM, one or more each.
	Keys []string
	// AllowUnsigned accepts images without a signature, and those that are
	// signed with a key that is not known.
	AllowUnsigned bool
	// IdentityFile has age identities to decrypt with; empty: there are none.
	IdentityFile string
}

// NewTrust reads the keys.
//
// Errors: ErrKey.
func NewTrust(o TrustOptions) (*Trust, error) {
	t := &Trust{keys: map[string]ed25519.PublicKey{}, allowUnsigned: o.AllowUnsigned}
	if o.Own != nil {
		t.keys[o.Own.id] = o.Own.key.Public().(ed25519.PublicKey)
	}
	for _, path := range o.Keys {
		b, err := readKeyFile(path, false)
		if err != nil {
			return nil, err
		}
		if err := t.addKeys(path, b); err != nil {
			return nil, err
		}
	}
	if o.IdentityFile == "" {
		return t, nil
	}
	b, err := readKeyFile(o.IdentityFile, true)
	if err != nil {
		return nil, err
	}
	if t.identities, err = age.ParseIdentities(bytes.NewReader(b)); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKey, o.IdentityFile, err)
	}
	return t, nil
}

func (t *Trust) addKeys(path string, b []byte) error {
	for len(bytes.TrimSpace(b)) > 0 {
		block, rest := pem.Decode(b)
		if block == nil || block.Type != pemPublic {
			return fmt.Errorf("%w: %s is not PEM with a %s", ErrKey, path, pemPublic)
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrKey, path, err)
		}
		key, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return fmt.Errorf("%w: %s is not an Ed25519 key", ErrKey, path)
		}
		id, _, err := describeKey(key)
		if err != nil {
			return err
		}
		t.keys[id] = key
		b = rest
	}
	return nil
}

// KeyIDs returns the trusted keys, sorted.
func (t *Trust) KeyIDs() []string { return slices.Sorted(maps.Keys(t.keys)) }

// payloadType is what a signature is about.
const payloadType = ocispec.MediaTypeImageManifest

// signed is what is signed: the pre-authentication encoding of DSSE, version 1,
// of the manifest without its signature.
func signed(manifest []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(manifest), manifest)
}

// marshalSigned encodes a manifest. s is nil for one without a signature.
func marshalSigned(m ocispec.Manifest, s *Signer) ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil || s == nil {
		return b, err
	}
	m.Annotations = maps.Clone(m.Annotations)
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[AnnotationSigner] = s.id
	m.Annotations[AnnotationSignature] = base64.StdEncoding.EncodeToString(s.sign(signed(b)))
	return json.Marshal(m)
}

// check returns the ID of the key that has signed a manifest, or "" for one that
// is accepted without.
//
// Errors: ErrUntrusted, ErrCorrupt.
func (t *Trust) check(raw []byte, m ocispec.Manifest) (string, error) {
	if t == nil {
		t = &Trust{}
	}
	signer, sig := m.Annotations[AnnotationSigner], m.Annotations[AnnotationSignature]
	key, known := t.keys[signer]
	switch {
	case known:
	case t.allowUnsigned:
		return "", nil
	case signer == "" && sig == "":
		return "", fmt.Errorf("%w: it is not signed", ErrUntrusted)
	default:
		return "", fmt.Errorf("%w: it is signed with the key %.80q", ErrUntrusted, signer)
	}
	// Whatever is read of the manifest is signed: it has the one form that its
	// decoded content has.
	if again, err := json.Marshal(m); err != nil || !bytes.Equal(again, raw) {
		return "", damaged("manifest", "it is not in the form that it was signed in")
	}
	m.Annotations = maps.Clone(m.Annotations)
	delete(m.Annotations, AnnotationSigner)
	delete(m.Annotations, AnnotationSignature)
	plain, err := json.Marshal(m)
	if err != nil {
		return "", damaged("manifest", "%v", err)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(sig)
	if err != nil || !ed25519.Verify(key, signed(plain), b) {
		return "", fmt.Errorf("%w: the signature with the key %s is wrong", ErrUntrusted, signer)
	}
	return signer, nil
}

// open returns what an encrypted blob holds.
//
// Errors: ErrUnreadable, ErrCorrupt.
func (t *Trust) open(desc ocispec.Descriptor, r io.Reader) (io.Reader, error) {
	if t == nil || len(t.identities) == 0 {
		return nil, fmt.Errorf("%w: this node has no key to read images with", ErrUnreadable)
	}
	plain, err := age.Decrypt(r, t.identities...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, fmt.Errorf("%w: it is encrypted for other keys than this node has", ErrUnreadable)
	}
	if err != nil {
		return nil, damaged(desc.Digest.String(), "%v", err)
	}
	return plain, nil
}

// ParseRecipients reads the public keys that images are encrypted for.
//
// Errors: ErrKey.
func ParseRecipients(keys []string) ([]age.Recipient, error) {
	var out []age.Recipient
	for _, k := range keys {
		r, err := age.ParseX25519Recipient(k)
		if err != nil {
			return nil, fmt.Errorf("%w: %.80q: %w", ErrKey, k, err)
		}
		out = append(out, r)
	}
	return out, nil
}
