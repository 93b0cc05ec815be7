package oci

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

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

// unzip hands the content of a layer to use, decrypted and decompressed, and
// checks the blob afterwards. What use made of it counts only if there is no
// error. What it unpacks to comes off what the image may have.
func (f *fetch) unzip(desc ocispec.Descriptor, use func(io.Reader) error) error {
	b, err := openBlob(f.ctx, f.from, desc)
	if err != nil {
		return err
	}
	defer b.close()
	if err := f.content(b, use); err != nil {
		// A blob that is not what it should be explains any other error.
		if verr := b.verify(); errors.Is(verr, ErrCorrupt) {
			return verr
		}
		return err
	}
	return b.verify()
}

func (f *fetch) content(b *blobReader, use func(io.Reader) error) (err error) {
	packed := io.Reader(b)
	if strings.HasSuffix(b.desc.MediaType, suffixEncrypted) {
		if packed, err = f.trust.open(b.desc, b); err != nil {
			return err
		}
	}
	z, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return damaged(b.desc.Digest.String(), "%v", err)
	}
	defer z.Close()
	limited := &budgetReader{r: z, blob: b, left: &f.bytes}
	if err := use(limited); err != nil {
		return err
	}
	// The content has to end where its reader was done.
	if n, err := limited.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return damaged(b.desc.Digest.String(), "it goes on where it should end: %v", err)
	}
	return nil
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
