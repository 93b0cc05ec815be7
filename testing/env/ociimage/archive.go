package ociimage

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// containerdName is the annotation by which containerd's import names an image.
const containerdName = "io.containerd.image.name"

// archive writes an OCI image layout with one image as a tar file, and returns
// the digest of its manifest. The layer is kept in a temporary file meanwhile.
func archive(w io.Writer, ref string, r recipe, tree rootfs) (digest.Digest, error) {
	layer, err := os.CreateTemp("", "crsc-layer-*")
	if err != nil {
		return "", err
	}
	defer layer.Close()
	if err := os.Remove(layer.Name()); err != nil {
		return "", err
	}
	sum := sha256.New()
	if err := tree.write(io.MultiWriter(layer, sum)); err != nil {
		return "", err
	}
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return "", err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	layerDesc := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digestOf(sum), Size: size}

	out := tar.NewWriter(w)
	if err := put(out, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return "", err
	}
	if err := out.WriteHeader(&tar.Header{Name: blobName(layerDesc.Digest), Mode: 0o644, Size: size}); err != nil {
		return "", err
	}
	if _, err := io.Copy(out, layer); err != nil {
		return "", err
	}
	config, err := putBlob(out, v1.MediaTypeImageConfig, imageConfig(r, layerDesc.Digest))
	if err != nil {
		return "", err
	}
	manifest, err := putBlob(out, v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: config, Layers: []v1.Descriptor{layerDesc},
	})
	if err != nil {
		return "", err
	}
	named := manifest
	named.Annotations = map[string]string{containerdName: ref, v1.AnnotationRefName: "latest"}
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{named},
	})
	if err != nil {
		return "", err
	}
	if err := put(out, "index.json", index); err != nil {
		return "", err
	}
	return manifest.Digest, out.Close()
}

func imageConfig(r recipe, layer digest.Digest) v1.Image {
	return v1.Image{
		Platform: v1.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config: v1.ImageConfig{
			User: r.user, Env: slices.Concat(common().env, r.env), Entrypoint: r.entrypoint, Cmd: r.cmd, WorkingDir: r.workDir,
		},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer}},
	}
}

func digestOf(h hash.Hash) digest.Digest { return digest.NewDigest(digest.SHA256, h) }

func blobName(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

func put(w *tar.Writer, name string, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func putBlob(w *tar.Writer, mediaType string, v any) (v1.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, put(w, blobName(d.Digest), data)
}

// key changes whenever the image would: with its recipe, or with any file.
func key(r recipe, tree rootfs) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "1 %+v %+v\n", r, common())
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		e := tree[name]
		fmt.Fprintf(h, "%s %c %o %s %d", name, e.header.Typeflag, e.header.Mode, e.header.Linkname, e.header.Size)
		if e.source != "" {
			st, err := os.Stat(e.source)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(h, " %d", st.ModTime().UnixNano())
		}
		fmt.Fprintln(h)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}
