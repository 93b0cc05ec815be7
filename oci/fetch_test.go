package oci

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// blobs is a content.Provider with whatever somebody wants us to read.
type blobs map[digest.Digest][]byte

func (b blobs) ReaderAt(_ context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	data, ok := b[d.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return blobAt{bytes.NewReader(data)}, nil
}

type blobAt struct{ *bytes.Reader }

func (blobAt) Close() error { return nil }

func (b blobs) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	b[d.Digest] = data
	return d
}

func zipped(t testing.TB, data []byte) []byte {
	z, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	defer z.Close()
	return z.EncodeAll(data, nil)
}

// exported returns the blobs of a full and of an incremental image, with their
// manifests.
func exported(t testing.TB) (all blobs, targets []ocispec.Descriptor) {
	d := newDaemon(t)
	p := d.publisher(Options{})
	f := newFake(30)
	dir := tempDir(t)
	for range 3 {
		f.change(4)
		out, err := p.Publish(context.Background(), f.write(t, dir))
		require.NoError(t, err)
		targets = append(targets, out.Target)
	}
	return d.contents(), targets
}

// contents returns all that the content store has.
func (d *daemon) contents() blobs {
	d.t.Helper()
	all := blobs{}
	err := d.Content.Walk(d.ctx, func(i content.Info) error {
		b, err := content.ReadBlob(d.ctx, d.Content, ocispec.Descriptor{Digest: i.Digest, Size: i.Size})
		all[i.Digest] = b
		return err
	})
	require.NoError(d.t, err)
	return all
}

// TestDamagedBlobs: each blob missing, cut short, flipped in a bit and padded.
func TestDamagedBlobs(t *testing.T) {
	all, targets := exported(t)
	for _, target := range targets[1:] {
		for dgst, whole := range all {
			if dgst == target.Digest || !needs(t, all, target, dgst) {
				continue
			}
			for what, damaged := range map[string][]byte{
				"missing": nil, "short": whole[:len(whole)-1], "empty": {},
				"flipped": flip(whole, len(whole)/2), "flipped at the end": flip(whole, len(whole)-1),
				"padded": append(slices.Clone(whole), 0),
			} {
				all[dgst] = damaged
				want := ErrCorrupt
				if damaged == nil {
					delete(all, dgst)
					want = ErrIncomplete
				}
				dir := filepath.Join(tempDir(t), "x")
				_, err := Fetch(t.Context(), all, target, dir, anyone())
				require.ErrorIs(t, err, want, what)
				require.NoDirExists(t, dir)
				left, err := os.ReadDir(filepath.Dir(dir))
				require.NoError(t, err)
				require.Empty(t, left, "a refused image leaves nothing")
				all[dgst] = whole
			}
		}
		_, err := Fetch(t.Context(), all, target, filepath.Join(tempDir(t), "x"), anyone())
		require.NoError(t, err)
	}
}

// needs says whether a layer is part of an image; its configuration is of no
// interest to Fetch.
func needs(t testing.TB, all blobs, target ocispec.Descriptor, d digest.Digest) bool {
	var m ocispec.Manifest
	require.NoError(t, json.Unmarshal(all[target.Digest], &m))
	return slices.ContainsFunc(m.Layers, func(l ocispec.Descriptor) bool { return l.Digest == d })
}

func flip(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 1
	return b
}

func TestLimits(t *testing.T) {
	all, targets := exported(t)
	for _, target := range targets {
		_, err := Fetch(t.Context(), all, target, filepath.Join(tempDir(t), "x"), FetchOptions{Trust: anyone().Trust, Bytes: 100_000})
		require.ErrorIs(t, err, ErrTooLarge)
		_, err = Fetch(t.Context(), all, target, filepath.Join(tempDir(t), "x"), FetchOptions{Trust: anyone().Trust, Files: 3})
		require.ErrorIs(t, err, ErrTooLarge)
	}
	dir := tempDir(t)
	_, err := Fetch(t.Context(), all, targets[0], dir, anyone())
	require.ErrorIs(t, err, os.ErrExist)
}

// hostileTar has one entry more than it should.
func hostileTar(t testing.TB, h *tar.Header, body []byte) []byte {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, n := range []string{"checkpoint/inventory.img", "crsc/cut.json"} {
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: n, Typeflag: tar.TypeReg}))
	}
	h.Size = int64(len(body))
	require.NoError(t, tw.WriteHeader(h))
	_, err := tw.Write(body)
	require.NoError(t, err)
	require.NoError(t, tw.Close())
	return b.Bytes()
}

// manifestOf makes an image of layers.
func manifestOf(all blobs, chain string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	m := ocispec.Manifest{Layers: layers, Annotations: map[string]string{
		AnnotationVersion: formatVersion, AnnotationSequence: "1", AnnotationChain: chain,
	}}
	b, _ := json.Marshal(m)
	return all.add(ocispec.MediaTypeImageManifest, b)
}

func stateOf(all blobs, zip []byte) ocispec.Descriptor {
	d := all.add(mediaTypeState, zip)
	d.Annotations = map[string]string{annotationRole: roleState}
	return d
}

func TestHostileTar(t *testing.T) {
	for what, h := range map[string]*tar.Header{
		"dots":           {Name: "checkpoint/../../x", Typeflag: tar.TypeReg},
		"absolute":       {Name: "/etc/passwd", Typeflag: tar.TypeReg},
		"deep":           {Name: "checkpoint/a/b.img", Typeflag: tar.TypeReg},
		"hidden":         {Name: "checkpoint/.x", Typeflag: tar.TypeReg},
		"unknown":        {Name: "x", Typeflag: tar.TypeReg},
		"synced":         {Name: "crsc/layer/synced", Typeflag: tar.TypeReg},
		"tree":           {Name: "crsc/images/manifest", Typeflag: tar.TypeReg},
		"twice":          {Name: "checkpoint/inventory.img", Typeflag: tar.TypeReg},
		"symbolic link":  {Name: "checkpoint/x.img", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		"hard link":      {Name: "checkpoint/x.img", Typeflag: tar.TypeLink, Linkname: "config.dump"},
		"device":         {Name: "checkpoint/x.img", Typeflag: tar.TypeChar},
		"fifo":           {Name: "checkpoint/x.img", Typeflag: tar.TypeFifo},
		"directory":      {Name: "checkpoint/x/", Typeflag: tar.TypeDir},
		"attributes":     {Name: "checkpoint/x.img", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}},
		"sparse records": {Name: "checkpoint/x.img", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"VENDOR.x": "1"}},
	} {
		t.Run(what, func(t *testing.T) {
			all := blobs{}
			target := manifestOf(all, "0", stateOf(all, zipped(t, hostileTar(t, h, nil))))
			dir := filepath.Join(tempDir(t), "x")
			_, err := Fetch(t.Context(), all, target, dir, anyone())
			require.ErrorIs(t, err, ErrCorrupt)
			require.NoDirExists(t, dir)
		})
	}
}

func TestHostileImages(t *testing.T) {
	good := hostileTar(t, &tar.Header{Name: "stats-dump", Typeflag: tar.TypeReg}, nil)
	bomb := hostileTar(t, &tar.Header{Name: "checkpoint/x.img", Typeflag: tar.TypeReg}, make([]byte, 64<<20))
	for what, c := range map[string]struct {
		zip  []byte
		want error
	}{
		"good":              {zipped(t, good), nil},
		"not zstd":          {good, ErrCorrupt},
		"cut short":         {zipped(t, good[:700]), ErrCorrupt},
		"more behind it":    {zipped(t, append(slices.Clone(good), "more"...)), ErrCorrupt},
		"garbage behind it": {append(zipped(t, good), "garbage"...), ErrCorrupt},
		"bomb":              {zipped(t, bomb), ErrTooLarge},
		"empty":             {nil, ErrCorrupt},
	} {
		t.Run(what, func(t *testing.T) {
			all := blobs{}
			target := manifestOf(all, "0", stateOf(all, c.zip))
			_, err := Fetch(t.Context(), all, target, filepath.Join(tempDir(t), "x"), FetchOptions{Trust: anyone().Trust, Bytes: 1 << 20})
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.want)
		})
	}
}

func TestHostileManifests(t *testing.T) {
	all := blobs{}
	state := stateOf(all, zipped(t, hostileTar(t, &tar.Header{Name: "stats-dump", Typeflag: tar.TypeReg}, nil)))
	role := func(d ocispec.Descriptor, role, path string) ocispec.Descriptor {
		d.Annotations = map[string]string{annotationRole: role, annotationPath: path}
		return d
	}
	file := all.add(mediaTypeFile, zipped(t, nil))
	for what, c := range map[string]struct {
		target ocispec.Descriptor
		want   error
	}{
		"no state":      {manifestOf(all, "0"), ErrCorrupt},
		"two states":    {manifestOf(all, "0", state, state), ErrCorrupt},
		"a file's path": {manifestOf(all, "0", state, role(file, roleFile, "layer/../../x")), ErrCorrupt},
		"one path twice": {manifestOf(all, "0", state, role(file, roleFile, "layer/pack.00000001"),
			role(file, roleFile, "layer/pack.00000001")), ErrCorrupt},
		"unknown role":     {manifestOf(all, "0", state, role(file, "x", "")), ErrCorrupt},
		"chain and layers": {manifestOf(all, "3", state), ErrCorrupt},
		"another digest":   {manifestOf(all, "0", ocispec.Descriptor{MediaType: mediaTypeState, Digest: "md5:0", Annotations: state.Annotations}), ErrCorrupt},
		"an ordinary one":  {all.add(ocispec.MediaTypeImageManifest, []byte(`{}`)), ErrNotCheckpoint},
		"an index":         {all.add(ocispec.MediaTypeImageIndex, []byte(`{}`)), ErrNotCheckpoint},
		"a new format":     {all.add(ocispec.MediaTypeImageManifest, []byte(`{"annotations":{"crsc.io/format":"2"}}`)), ErrUnsupportedVersion},
		"not JSON":         {all.add(ocispec.MediaTypeImageManifest, []byte(`{`)), ErrCorrupt},
		"huge":             {ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: state.Digest, Size: 1 << 40}, ErrTooLarge},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := Fetch(t.Context(), all, c.target, filepath.Join(tempDir(t), "x"), anyone())
			require.ErrorIs(t, err, c.want)
		})
	}
}

// FuzzPages decodes what claims to be a layer of pages.
func FuzzPages(f *testing.F) {
	all, _ := exported(f)
	for _, b := range all {
		z, err := zstd.NewReader(bytes.NewReader(b))
		require.NoError(f, err)
		if data, err := io.ReadAll(z); err == nil {
			f.Add(data[:min(len(data), 8<<10)])
		}
		z.Close()
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 1 << 20
		d, err := readDelta(bufio.NewReader(bytes.NewReader(b)), most)
		if err != nil {
			return
		}
		total := uint64(0)
		for _, x := range d.files {
			total += x.pages()
			require.Regexp(t, `^pages-[0-9]+\.img$`, x.name)
		}
		require.LessOrEqual(t, total, uint64(most))
	})
}

// FuzzFetch takes the bytes for the standard layer and for the pages of an
// image: whatever they are, nothing outside of the directory changes.
func FuzzFetch(f *testing.F) {
	all, _ := exported(f)
	var tars, pages [][]byte
	for _, b := range all {
		z, err := zstd.NewReader(bytes.NewReader(b))
		require.NoError(f, err)
		data, err := io.ReadAll(z)
		z.Close()
		switch {
		case err != nil:
		case bytes.HasPrefix(data, []byte(deltaMagic)):
			pages = append(pages, data)
		default:
			tars = append(tars, data[:min(len(data), 64<<10)])
		}
	}
	for _, a := range tars {
		for _, b := range pages {
			f.Add(a, b)
		}
	}
	f.Fuzz(func(t *testing.T, state, delta []byte) {
		all := blobs{}
		s := all.add(mediaTypeState, zipped(t, state))
		p := all.add(mediaTypePages, zipped(t, delta))
		source := s
		s.Annotations = map[string]string{annotationRole: roleState}
		p.Annotations = map[string]string{annotationRole: rolePages}
		source.Annotations = map[string]string{annotationRole: roleSource}
		parent := tempDir(t)
		dir := filepath.Join(parent, "x")
		_, err := Fetch(t.Context(), all, manifestOf(all, "1", s, p, source), dir, FetchOptions{Trust: anyone().Trust, Bytes: 4 << 20, Files: 100})
		left, rerr := os.ReadDir(parent)
		require.NoError(t, rerr)
		if err != nil {
			require.Empty(t, left)
			return
		}
		require.Len(t, left, 1)
	})
}
