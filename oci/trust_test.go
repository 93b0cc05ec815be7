package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

func newSigner(t testing.TB) (s *Signer, path string) {
	t.Helper()
	path = filepath.Join(tempDir(t), "keys", "signing.pem")
	s, err := OpenSigner(path)
	require.NoError(t, err)
	return s, path
}

func newTrust(t testing.TB, o TrustOptions) *Trust {
	t.Helper()
	trust, err := NewTrust(o)
	require.NoError(t, err)
	return trust
}

// published publishes two checkpoints, and returns all blobs and the images.
func published(t testing.TB, o Options) (all blobs, targets []ocispec.Descriptor, last *fakeCheckpoint) {
	t.Helper()
	d, f, dir := newDaemon(t), newFake(20), tempDir(t)
	p := d.publisher(o)
	for range 2 {
		f.change(3)
		out, err := p.Publish(context.Background(), f.write(t, dir))
		require.NoError(t, err)
		targets = append(targets, out.Target)
	}
	return d.contents(), targets, f
}

func fetchFor(t testing.TB, all blobs, target ocispec.Descriptor, trust *Trust) (string, *Info, error) {
	t.Helper()
	dir := filepath.Join(tempDir(t), "x")
	info, err := Fetch(t.Context(), all, target, dir, FetchOptions{Trust: trust, Transient: true})
	if err != nil {
		require.NoDirExists(t, dir)
	}
	return dir, info, err
}

// TestSignedImages: who is believed, and who is not.
func TestSignedImages(t *testing.T) {
	own, path := newSigner(t)
	other, _ := newSigner(t)
	all, targets, f := published(t, Options{Signer: own})
	public := path + ".pub"
	require.FileExists(t, public)
	for _, trust := range []*Trust{newTrust(t, TrustOptions{Own: own}), newTrust(t, TrustOptions{Own: other, Keys: []string{public}})} {
		dir, info, err := fetchFor(t, all, targets[1], trust)
		require.NoError(t, err)
		require.Equal(t, own.KeyID(), info.Signer)
		f.requireSame(t, dir)
		require.Contains(t, trust.KeyIDs(), own.KeyID())
	}
	for _, trust := range []*Trust{nil, {}, newTrust(t, TrustOptions{Own: other})} {
		_, _, err := fetchFor(t, all, targets[0], trust)
		require.ErrorIs(t, err, ErrUntrusted)
		require.ErrorContains(t, err, own.KeyID())
	}
	_, info, err := fetchFor(t, all, targets[0], newTrust(t, TrustOptions{Own: other, AllowUnsigned: true}))
	require.NoError(t, err)
	require.Empty(t, info.Signer)

	plain, targets, _ := published(t, Options{})
	_, _, err = fetchFor(t, plain, targets[0], newTrust(t, TrustOptions{Own: own}))
	require.ErrorIs(t, err, ErrUntrusted)
	require.ErrorContains(t, err, "not signed")
	_, err = Inspect(t.Context(), plain, targets[0], newTrust(t, TrustOptions{AllowUnsigned: true}))
	require.NoError(t, err)
}

// TestChangedManifests: nothing in a signed manifest can be changed, not even
// what no reader knows.
func TestChangedManifests(t *testing.T) {
	own, _ := newSigner(t)
	other, _ := newSigner(t)
	all, targets, _ := published(t, Options{Signer: own})
	raw := all[targets[0].Digest]
	change := func(edit func(m *ocispec.Manifest)) []byte {
		var m ocispec.Manifest
		require.NoError(t, json.Unmarshal(raw, &m))
		m.Annotations = maps.Clone(m.Annotations)
		edit(&m)
		b, err := json.Marshal(m)
		require.NoError(t, err)
		return b
	}
	var second ocispec.Manifest
	require.NoError(t, json.Unmarshal(all[targets[1].Digest], &second))
	changed := map[string][]byte{
		"an annotation": change(func(m *ocispec.Manifest) { m.Annotations[AnnotationSequence] = "9" }),
		"a new one":     change(func(m *ocispec.Manifest) { m.Annotations["x"] = "y" }),
		"a layer":       change(func(m *ocispec.Manifest) { m.Layers[0].Digest = second.Layers[1].Digest }),
		"a role":        change(func(m *ocispec.Manifest) { m.Layers[0].Annotations = map[string]string{annotationRole: roleSource} }),
		"no signature":  change(func(m *ocispec.Manifest) { delete(m.Annotations, AnnotationSignature) }),
		"no signer":     change(func(m *ocispec.Manifest) { delete(m.Annotations, AnnotationSigner) }),
		"other signer":  change(func(m *ocispec.Manifest) { m.Annotations[AnnotationSigner] = other.KeyID() }),
		"other's signature": change(func(m *ocispec.Manifest) {
			m.Annotations[AnnotationSignature] = second.Annotations[AnnotationSignature]
		}),
		"unknown field": append([]byte(`{"x":1,`), raw[1:]...),
		"twice":         append([]byte(`{"layers":[],`), raw[1:]...),
		"blanks":        append([]byte(" "), raw...),
	}
	trust := newTrust(t, TrustOptions{Own: own, Keys: nil})
	for what, b := range changed {
		target := all.add(ocispec.MediaTypeImageManifest, b)
		_, err := Inspect(t.Context(), all, target, trust)
		require.Error(t, err, what)
		if !bytes.Contains(b, []byte(own.KeyID())) {
			require.ErrorIs(t, err, ErrUntrusted, what)
			continue
		}
		// Allowing unsigned images does not allow bad signatures.
		lax := newTrust(t, TrustOptions{Own: own, AllowUnsigned: true})
		_, err = Inspect(t.Context(), all, target, lax)
		require.Error(t, err, what)
	}
	_, err := Inspect(t.Context(), all, targets[0], trust)
	require.NoError(t, err)
}

// TestKeyFiles: one key comes of many who make it, and others can't read it.
func TestKeyFiles(t *testing.T) {
	path := filepath.Join(tempDir(t), "keys", "k.pem")
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			s, err := OpenSigner(path)
			if err == nil {
				ids[i] = s.KeyID()
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		require.Equal(t, ids[0], id)
		require.NotEmpty(t, id)
	}
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, st.Mode().Perm())
	list, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, list, 2, "the key and the public one")
	public, err := os.ReadFile(path + ".pub")
	require.NoError(t, err)
	s, err := OpenSigner(path)
	require.NoError(t, err)
	want, err := s.PublicKey()
	require.NoError(t, err)
	require.Equal(t, string(want), string(public))

	require.NoError(t, os.Chmod(path, 0o640))
	_, err = OpenSigner(path)
	require.ErrorIs(t, err, ErrKey)
	require.ErrorContains(t, err, "chmod")
	for name, data := range map[string]string{"empty": "", "text": "hello", "public": string(public), "large": strings.Repeat("x", maxKeyFile+1)} {
		bad := filepath.Join(filepath.Dir(path), name)
		require.NoError(t, os.WriteFile(bad, []byte(data), 0o600))
		_, err = OpenSigner(bad)
		require.ErrorIs(t, err, ErrKey, name)
		require.ErrorContains(t, err, bad)
		if name == "public" || name == "empty" {
			continue
		}
		_, err = NewTrust(TrustOptions{Keys: []string{bad}})
		require.ErrorIs(t, err, ErrKey, name)
	}
	_, err = NewTrust(TrustOptions{Keys: []string{path + ".none"}})
	require.ErrorIs(t, err, ErrKey)
	_, err = NewTrust(TrustOptions{IdentityFile: path + ".pub"})
	require.ErrorIs(t, err, ErrKey)
}

// identityFile writes an age identity.
func identityFile(t testing.TB) (path string, r age.Recipient) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	path = filepath.Join(tempDir(t), "age.key")
	require.NoError(t, os.WriteFile(path, []byte("# a key\n"+id.String()+"\n"), 0o600))
	rs, err := ParseRecipients([]string{id.Recipient().String()})
	require.NoError(t, err)
	return path, rs[0]
}

// TestEncryptedImages: only who has a key reads them, and nothing shows.
func TestEncryptedImages(t *testing.T) {
	mine, to := identityFile(t)
	backup, toBackup := identityFile(t)
	wrong, _ := identityFile(t)
	own, _ := newSigner(t)
	all, targets, f := published(t, Options{Signer: own, EncryptFor: []age.Recipient{to, toBackup}})
	for _, file := range []string{mine, backup} {
		dir, info, err := fetchFor(t, all, targets[1], newTrust(t, TrustOptions{Own: own, IdentityFile: file}))
		require.NoError(t, err)
		require.True(t, info.Encrypted)
		require.Equal(t, 1, info.Chain, "an encrypted increment")
		f.requireSame(t, dir)
	}
	for _, file := range []string{wrong, ""} {
		_, _, err := fetchFor(t, all, targets[1], newTrust(t, TrustOptions{Own: own, IdentityFile: file}))
		require.ErrorIs(t, err, ErrUnreadable)
		require.NotErrorIs(t, err, ErrCorrupt)
	}
	zstdMagic := []byte{0x28, 0xb5, 0x2f, 0xfd}
	for d, b := range all {
		require.NotEqual(t, zstdMagic, b[:4], d)
		for _, secret := range [][]byte{f.files["images/pages-1.img"][:64], []byte("inventory"), []byte("ociVersion")} {
			require.NotContains(t, string(b), string(secret), d)
		}
	}
	info, err := Inspect(t.Context(), all, targets[1], newTrust(t, TrustOptions{Own: own}))
	require.NoError(t, err, "a manifest is read without the key")
	require.True(t, info.Encrypted)
	trust := newTrust(t, TrustOptions{AllowUnsigned: true, IdentityFile: mine})
	for d, whole := range all {
		if !needs(t, all, targets[1], d) {
			continue
		}
		for _, bad := range [][]byte{whole[:len(whole)-1], flip(whole, len(whole)/2), append(whole[:len(whole):len(whole)], 0)} {
			all[d] = bad
			_, _, err := fetchFor(t, all, targets[1], trust)
			require.ErrorIs(t, err, ErrCorrupt)
		}
		all[d] = whole
	}
}

// FuzzManifest: of all manifests that name the key, the reader accepts those
// that were signed with it and no other.
func FuzzManifest(f *testing.F) {
	own, _ := newSigner(f)
	trust := newTrust(f, TrustOptions{Own: own})
	all, targets, _ := published(f, Options{Signer: own})
	plain, unsigned, _ := published(f, Options{})
	genuine := map[string]bool{}
	for _, t := range targets {
		genuine[string(all[t.Digest])] = true
		f.Add(all[t.Digest])
	}
	f.Add(plain[unsigned[1].Digest])
	f.Fuzz(func(t *testing.T, b []byte) {
		if info, _, err := parseManifest(b, trust); err == nil {
			require.True(t, genuine[string(b)])
			require.Equal(t, own.KeyID(), info.Signer)
		}
		// What is not signed is bounded all the same.
		if _, parts, err := parseManifest(b, &Trust{allowUnsigned: true}); err == nil {
			require.LessOrEqual(t, len(parts.sources), maxSources)
			require.LessOrEqual(t, len(parts.files), maxLayers)
		}
	})
}
