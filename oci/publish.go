package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// leaseTime is how long what an interrupted publication left stays at most, if
// no other follows. No publication takes longer.
const leaseTime = time.Hour

// timeFormat sorts as text like the times it stands for.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// tidyTime bounds what is done after a publication was cancelled.
const tidyTime = 3 * time.Second

// Checkpoint is one to be published.
type Checkpoint struct {
	// Dir is the checkpoint directory. It must not change before Publish
	// returns.
	Dir string
	// Images is the directory of CRIU's images; empty: it is in Dir.
	Images   string
	Sequence uint64
	Time     time.Time // when it was made
	// Rootfs is the writable layer; nil: there is none.
	Rootfs *Rootfs `json:"-"`
	// Annotations are further ones for the manifest.
	Annotations map[string]string
}

// Rootfs is a writable layer as a tar with the whiteouts of OCI layers.
type Rootfs struct {
	Size  func() (int64, error) // in bytes, of what Write writes
	Write func(io.Writer) error
}

// Published describes an image.
type Published struct {
	Name   string
	Target ocispec.Descriptor
	// Chain is the place in the chain; 0 holds all memory.
	Chain int
	// Bytes were added to the content store, ChangedBytes is the memory (and
	// for a full image, all of it) that was not in it before.
	Bytes, ChangedBytes int64
	// MemoryBytes is the memory of the checkpoint.
	MemoryBytes int64
}

// publication is one Publish under way.
type publication struct {
	*Publisher
	cp   *Checkpoint
	inv  *inventory
	up   *uploader
	out  Published
	next *chain
	kept map[fileKey]layer
}

// Publish makes an image of a checkpoint and removes images that are beyond
// what is to be kept. With Published.Name set the image is complete, whatever
// the error says; otherwise there is none, and the images before are as they
// were.
//
// Errors: ErrNotPublishable, and those of the content store.
func (p *Publisher) Publish(ctx context.Context, cp Checkpoint) (Published, error) {
	ctx = p.Context(ctx)
	w := &publication{Publisher: p, cp: &cp, kept: map[fileKey]layer{}}
	if err := w.run(ctx); err != nil {
		return w.out, fmt.Errorf("publish checkpoint %d: %w", cp.Sequence, err)
	}
	return w.out, nil
}

func (w *publication) run(ctx context.Context) (err error) {
	images := cmp.Or(w.cp.Images, filepath.Join(w.cp.Dir, "images"))
	if w.inv, err = takeInventory(w.cp.Dir, images); err != nil {
		return err
	}
	if !w.known {
		if err := w.o.Store.Complete(ctx, &w.o.Origin); err != nil {
			return err
		}
		w.known = true
	}
	lease, err := w.begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.end(ctx, lease)) }()
	held := leases.WithLease(ctx, lease.ID)
	if w.up, err = newUploader(w.o.Store, lease, token(w.o.Origin.Namespace, w.o.Origin.ID)+"-", w.o.EncryptFor); err != nil {
		return err
	}
	m, err := w.layers(held)
	if err != nil {
		return errors.Join(err, w.forget())
	}
	target, err := w.manifest(held, m)
	if err != nil {
		return errors.Join(err, w.forget())
	}
	// From here on the image exists.
	if err := w.name(ctx, target); err != nil {
		return errors.Join(err, w.forget())
	}
	return errors.Join(w.adopt(), w.prune(ctx))
}

// begin drops what an interrupted publication left, and takes a lease.
func (w *publication) begin(ctx context.Context) (leases.Lease, error) {
	s, id := w.o.Store, token(w.o.Origin.Namespace, w.o.Origin.ID)
	if err := s.Leases.Delete(ctx, leases.Lease{ID: id}); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return leases.Lease{}, fmt.Errorf("lease: %w", err)
	}
	if err := w.abortUploads(ctx); err != nil {
		return leases.Lease{}, err
	}
	// A call that is cancelled may have made the lease all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	l, err := s.Leases.Create(ctx, func(l *leases.Lease) error { l.ID = id; return nil }, leases.WithExpiration(leaseTime))
	if err != nil {
		return leases.Lease{}, fmt.Errorf("lease: %w", err)
	}
	return l, nil
}

func (w *publication) abortUploads(ctx context.Context) error {
	c, id := w.o.Store.Content, token(w.o.Origin.Namespace, w.o.Origin.ID)
	list, err := c.ListStatuses(ctx, `ref~="^`+id+`-"`)
	if err != nil {
		return fmt.Errorf("uploads: %w", err)
	}
	for _, s := range list {
		if err := c.Abort(ctx, s.Ref); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return fmt.Errorf("upload %s: %w", s.Ref, err)
		}
	}
	return nil
}

// end gives the lease back, also after ctx has ended.
func (w *publication) end(ctx context.Context, l leases.Lease) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	err := w.abortUploads(ctx)
	if derr := w.o.Store.Leases.Delete(ctx, l); derr != nil && !errors.Is(derr, errdefs.ErrNotFound) {
		err = errors.Join(err, fmt.Errorf("lease: %w", derr))
	}
	return err
}

// name makes the image known. The name with the number comes first: it is the
// commit. Latest may be one behind if we end in between.
func (w *publication) name(ctx context.Context, target ocispec.Descriptor) error {
	o := &w.o.Origin
	labels := map[string]string{labelContainer: o.ID, labelTime: w.cp.Time.UTC().Format(timeFormat)}
	if o.Namespace == namespaceCRI {
		labels[labelManaged] = "managed"
	}
	image := images.Image{Name: Name(o.Namespace, o.ID, Tag(w.cp.Sequence)), Target: target, Labels: labels}
	if err := keepPinned(ctx, w.o.Store.Images, image); err != nil {
		return err
	}
	if err := put(ctx, w.o.Store.Images, image); err != nil {
		return err
	}
	w.out.Name, w.out.Target, w.out.Bytes = image.Name, target, w.up.bytes
	image.Name = Name(o.Namespace, o.ID, Latest)
	return put(ctx, w.o.Store.Images, image)
}

// keepPinned gives a pinned image of an earlier container another name before
// it loses this one: tag and the beginning of its digest.
func keepPinned(ctx context.Context, s images.Store, image images.Image) error {
	before, err := s.Get(ctx, image.Name)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", image.Name, err)
	}
	if before.Labels[LabelPin] != "true" || before.Target.Digest == image.Target.Digest {
		return nil
	}
	before.Name += "-" + before.Target.Digest.Encoded()[:8]
	return put(ctx, s, before)
}

func put(ctx context.Context, s images.Store, image images.Image) error {
	_, err := s.Create(ctx, image)
	if errors.Is(err, errdefs.ErrAlreadyExists) {
		_, err = s.Update(ctx, image)
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", image.Name, err)
	}
	return nil
}

// adopt makes the next publication build upon this one.
func (w *publication) adopt() error {
	before := w.chain
	w.chain, w.files = w.next, w.kept
	err := w.save()
	if before != nil {
		err = errors.Join(err, os.Remove(before.table))
	}
	return err
}

// forget removes what was prepared for the next publication.
func (w *publication) forget() error {
	if w.next == nil || w.next.table == "" {
		return nil
	}
	return os.Remove(w.next.table)
}
