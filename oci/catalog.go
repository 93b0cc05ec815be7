package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNoImage is returned for a checkpoint that has no image.
var ErrNoImage = errors.New("there is no image of this checkpoint")

// Entry is a published checkpoint.
type Entry struct {
	Name                 string
	Namespace, Container string
	Target               ocispec.Descriptor
	Sequence             uint64
	Time                 time.Time // of the checkpoint
	// Pinned: retention passes over it.
	Pinned bool
	// Bytes is the compressed size of everything the image needs, OwnBytes of
	// what no later image of the catalog needs.
	Bytes, OwnBytes int64

	blobs []ocispec.Descriptor
}

// Catalog lists the published checkpoints of a container, the newest first.
// Those of an earlier container of the same name are among them. An image
// whose manifest can't be read has no sizes; the error names it, and the list is
// complete all the same.
func (s *Store) Catalog(ctx context.Context, namespace, id string) ([]Entry, error) {
	list, errs := s.measured(ctx, namespace, id)
	return list, errors.Join(errs...)
}

// measured is Catalog with each error by itself.
func (s *Store) measured(ctx context.Context, namespace, id string) (list []Entry, errs []error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	list, err := s.entries(ctx, namespace, `labels."`+labelContainer+`"=="`+id+`"`)
	if err != nil {
		return nil, []error{err}
	}
	seen := map[digest.Digest]bool{}
	for i := range list {
		errs = append(errs, list[i].measure(ctx, s, seen))
	}
	return list, errs
}

// Pin makes retention pass over the image of a checkpoint, or not any more, and
// the kubelet, which removes unused images when a disk is full. tag
// is what Entry.Tag tells: a sequence number, with more behind it if the image is
// an earlier container's.
//
// Errors: ErrNoImage.
func (s *Store) Pin(ctx context.Context, namespace, id, tag string, pinned bool) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	name := Name(namespace, id, tag)
	if _, ok := sequenceOf(tag); !ok {
		return fmt.Errorf("%s: %w", name, ErrNoImage)
	}
	image, err := s.Images.Get(ctx, name)
	if errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("%s: %w", name, ErrNoImage)
	}
	if err != nil {
		return fmt.Errorf("pin %s: %w", name, err)
	}
	if image.Labels == nil {
		image.Labels = map[string]string{}
	}
	delete(image.Labels, LabelPin)
	delete(image.Labels, labelKept)
	if pinned {
		image.Labels[LabelPin] = "true"
		if namespace == namespaceCRI {
			image.Labels[labelKept] = "pinned"
		}
	}
	if _, err := s.Images.Update(ctx, image, "labels"); err != nil {
		return fmt.Errorf("pin %s: %w", name, err)
	}
	return nil
}

// entries lists the checkpoints of one namespace that satisfy a filter, the
// newest first.
func (s *Store) entries(ctx context.Context, namespace, filter string) ([]Entry, error) {
	list, err := s.Images.List(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("checkpoint images: %w", err)
	}
	var out []Entry
	for _, i := range list {
		if e, ok := entryOf(namespace, &i); ok {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, newestFirst)
	return out, nil
}

func newestFirst(a, b Entry) int {
	return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.Sequence, a.Sequence))
}

// entryOf recognises the image of a checkpoint by its name and labels. The tag
// Latest is a second name of one.
func entryOf(namespace string, i *images.Image) (Entry, bool) {
	id := i.Labels[labelContainer]
	tag, ok := strings.CutPrefix(i.Name, Name(namespace, id, ""))
	if !ok || id == "" {
		return Entry{}, false
	}
	sequence, ok := sequenceOf(tag)
	if !ok {
		return Entry{}, false
	}
	at, err := time.Parse(timeFormat, i.Labels[labelTime])
	if err != nil {
		at = i.CreatedAt
	}
	return Entry{
		Name: i.Name, Namespace: namespace, Container: id, Target: i.Target,
		Sequence: sequence, Time: at, Pinned: i.Labels[LabelPin] == "true",
	}, true
}

// sequenceOf is the number in a tag.
func sequenceOf(tag string) (uint64, bool) {
	number, _, _ := strings.Cut(tag, "-") // see keepPinned
	sequence, err := strconv.ParseUint(number, 10, 64)
	return sequence, err == nil
}

// Tag is that of the name: what Pin takes.
func (e *Entry) Tag() string { return strings.TrimPrefix(e.Name, Name(e.Namespace, e.Container, "")) }

// measure reads the manifest and works the sizes out; seen are the blobs of
// later images.
func (e *Entry) measure(ctx context.Context, s *Store, seen map[digest.Digest]bool) error {
	if err := e.readBlobs(ctx, s); err != nil {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	for _, d := range e.blobs {
		e.Bytes += d.Size
		if !seen[d.Digest] {
			seen[d.Digest] = true
			e.OwnBytes += d.Size
		}
	}
	return nil
}
