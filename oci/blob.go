package oci

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest bounds manifests, in bytes.
const maxManifest = 4 << 20

// maxWindow is the largest zstd window that is accepted: the decoder's memory.
const maxWindow = 8 << 20

// blobReader reads a blob and checks it at the end.
type blobReader struct {
	ctx  context.Context
	desc ocispec.Descriptor
	ra   content.ReaderAt
	at   int64
	sum  hash.Hash
	err  error // of the store
}

// openBlob opens a blob. Its content may be trusted only after verify.
//
// Errors: ErrIncomplete, ErrCorrupt if size or digest are malformed.
func openBlob(ctx context.Context, p content.Provider, desc ocispec.Descriptor) (*blobReader, error) {
	if desc.Digest.Validate() != nil || desc.Digest.Algorithm() != digest.SHA256 || desc.Size < 0 {
		return nil, damaged("descriptor", "digest %.100q, size %d", string(desc.Digest), desc.Size)
	}
	// What the descriptor itself claims to hold is not looked at.
	ra, err := p.ReaderAt(ctx, ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size})
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	if ra.Size() != desc.Size {
		return nil, errors.Join(damaged(desc.Digest.String(), "%d bytes instead of %d", ra.Size(), desc.Size), ra.Close())
	}
	return &blobReader{ctx: ctx, desc: desc, ra: ra, sum: sha256.New()}, nil
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.at >= b.desc.Size {
		return 0, io.EOF
	}
	n, err := b.ra.ReadAt(p[:min(int64(len(p)), b.desc.Size-b.at)], b.at)
	b.sum.Write(p[:n])
	b.at += int64(n)
	if errors.Is(err, io.EOF) && n > 0 {
		err = nil
	}
	b.err = err
	return n, err
}

// verify reads what is left and compares the digest.
func (b *blobReader) verify() error {
	if _, err := io.Copy(io.Discard, b); err != nil {
		return fmt.Errorf("blob %s: %w", b.desc.Digest, err)
	}
	if got := digest.NewDigest(digest.SHA256, b.sum); b.at != b.desc.Size || got != b.desc.Digest {
		return damaged(b.desc.Digest.String(), "its content has the digest %s", got)
	}
	return nil
}

func (b *blobReader) close() error { return b.ra.Close() }

// readBlob returns a small blob, checked.
func readBlob(ctx context.Context, p content.Provider, desc ocispec.Descriptor, most int64) ([]byte, error) {
	if desc.Size > most {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrTooLarge, desc.Digest, desc.Size)
	}
	b, err := openBlob(ctx, p, desc)
	if err != nil {
		return nil, err
	}
	defer b.close()
	data, err := io.ReadAll(io.LimitReader(b, most))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	return data, b.verify()
}

// unzip hands the content of a compressed blob to use, and checks the blob
// afterwards. What use made of it counts only if there is no error. budget
// bounds what the blob may unpack to, and is reduced by it.
func unzip(ctx context.Context, p content.Provider, desc ocispec.Descriptor, budget *int64, use func(io.Reader) error) error {
	b, err := openBlob(ctx, p, desc)
	if err != nil {
		return err
	}
	defer b.close()
	z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return damaged(desc.Digest.String(), "%v", err)
	}
	defer z.Close()
	limited := &budgetReader{r: z, blob: b, left: budget}
	if err := use(limited); err != nil {
		// A blob that is not what it should be explains any other error.
		if verr := b.verify(); errors.Is(verr, ErrCorrupt) {
			return verr
		}
		return err
	}
	// The content has to end where its reader was done.
	if n, err := limited.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		if verr := b.verify(); verr != nil {
			return verr
		}
		return damaged(desc.Digest.String(), "it goes on where it should end: %v", err)
	}
	return b.verify()
}

// budgetReader fails with ErrTooLarge instead of reading more than is allowed.
// What the decompressor does not understand is ErrCorrupt.
type budgetReader struct {
	r    io.Reader
	blob *blobReader
	left *int64
}

func (b *budgetReader) Read(p []byte) (int, error) {
	most := min(int64(len(p)), *b.left)
	if most <= 0 {
		p, most = make([]byte, 1), 1 // only the end may come
	}
	n, err := b.r.Read(p[:most])
	if n > 0 && *b.left <= 0 {
		return 0, fmt.Errorf("%w: it unpacks to too much", ErrTooLarge)
	}
	*b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) && b.blob.err == nil && b.blob.ctx.Err() == nil {
		err = damaged(b.blob.desc.Digest.String(), "%v", err)
	}
	return n, err
}
