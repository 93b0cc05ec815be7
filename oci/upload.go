package oci

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"

	"filippo.io/age"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layer is one that is in the content store.
type layer struct {
	desc   ocispec.Descriptor
	diffID digest.Digest // of what it holds uncompressed
}

// uploader brings blobs into the content store. Its context carries the lease
// that holds them.
type uploader struct {
	store  *Store
	lease  leases.Lease
	prefix string // of the names of uploads
	count  int
	bytes  int64 // compressed, of blobs that the store did not have
	zip    *zstd.Encoder
	seal   []age.Recipient // of layers; none: they are not encrypted
}

// uploadBuffer is what goes to the daemon in one message. Each is a round trip;
// but the daemon, which is not as modest as who makes images, works on each
// without a pause.
const uploadBuffer = 128 << 10

func newUploader(store *Store, lease leases.Lease, prefix string, seal []age.Recipient) (*uploader, error) {
	// One goroutine, a small window: this runs beside a workload.
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	return &uploader{store: store, lease: lease, prefix: prefix, zip: zip, seal: seal}, nil
}

// layer compresses what write produces, and encrypts it.
func (u *uploader) layer(ctx context.Context, mediaType string, annotations map[string]string, write func(io.Writer) error) (layer, error) {
	plain := sha256.New()
	if len(u.seal) > 0 {
		mediaType += suffixEncrypted
	}
	desc, err := u.blob(ctx, mediaType, nil, func(out io.Writer) error {
		w, err := u.sealed(out)
		if err != nil {
			return err
		}
		u.zip.Reset(w)
		// A buffer, so that small writes do not become small blocks.
		b := bufio.NewWriterSize(io.MultiWriter(plain, u.zip), 64<<10)
		if err := write(b); err != nil {
			return err
		}
		if err := b.Flush(); err != nil {
			return err
		}
		return errors.Join(u.zip.Close(), w.Close())
	})
	desc.Annotations = annotations
	l := layer{desc: desc, diffID: digest.NewDigest(digest.SHA256, plain)}
	if len(u.seal) > 0 {
		// The digest of the content would tell whoever guesses the content.
		l.diffID = desc.Digest
	}
	return l, err
}

// sealed returns a writer that encrypts, or passes on, what comes to w. Its
// Close leaves w open.
func (u *uploader) sealed(w io.Writer) (io.WriteCloser, error) {
	if len(u.seal) == 0 {
		return openEnded{w}, nil
	}
	sealed, err := age.Encrypt(w, u.seal...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return sealed, nil
}

// openEnded is a writer without an end of its own.
type openEnded struct{ io.Writer }

func (openEnded) Close() error { return nil }

// bytesBlob stores a small blob as it is.
func (u *uploader) bytesBlob(ctx context.Context, mediaType string, labels map[string]string, b []byte) (ocispec.Descriptor, error) {
	return u.blob(ctx, mediaType, labels, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(b))
		return err
	})
}

// blob stores what write produces. It is durable when blob returns.
func (u *uploader) blob(ctx context.Context, mediaType string, labels map[string]string, write func(io.Writer) error) (ocispec.Descriptor, error) {
	u.count++
	ref := u.prefix + strconv.Itoa(u.count)
	w, err := content.OpenWriter(ctx, u.store.Content, content.WithRef(ref))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("upload: %w", err)
	}
	defer w.Close()
	m := &meter{w: w, sum: sha256.New()}
	b := bufio.NewWriterSize(m, uploadBuffer)
	if err := write(b); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := b.Flush(); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("upload: %w", err)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.NewDigest(digest.SHA256, m.sum), Size: m.n}
	err = w.Commit(ctx, desc.Size, desc.Digest, content.WithLabels(labels))
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		return desc, u.adopt(ctx, desc, labels)
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("upload: %w", err)
	}
	u.bytes += m.n
	return desc, nil
}

// adopt takes a blob that the store had already.
func (u *uploader) adopt(ctx context.Context, desc ocispec.Descriptor, labels map[string]string) error {
	if err := u.hold(ctx, desc); err != nil || len(labels) == 0 {
		return err
	}
	var paths []string
	for name := range labels {
		paths = append(paths, "labels."+name)
	}
	_, err := u.store.Content.Update(ctx, content.Info{Digest: desc.Digest, Labels: labels}, paths...)
	return err
}

// hold puts a blob of an earlier publication under the lease. The error is
// errdefs.ErrNotFound if it is gone. The order matters: what is under the lease
// and there after that, stays there.
func (u *uploader) hold(ctx context.Context, desc ocispec.Descriptor) error {
	r := leases.Resource{Type: "content", ID: desc.Digest.String()}
	if err := u.store.Leases.AddResource(ctx, u.lease, r); err != nil {
		return fmt.Errorf("hold %s: %w", desc.Digest, err)
	}
	if _, err := u.store.Content.Info(ctx, desc.Digest); err != nil {
		return fmt.Errorf("hold %s: %w", desc.Digest, err)
	}
	return nil
}

// meter counts and hashes what passes.
type meter struct {
	w   io.Writer
	n   int64
	sum hash.Hash
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.n += int64(n)
	m.sum.Write(p[:n])
	return n, err
}
