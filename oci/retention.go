package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// prune removes the names of images beyond what is to be kept. containerd's
// garbage collection then removes the blobs that no image refers to; a chain's
// layers stay as long as one of its images.
func (w *publication) prune(ctx context.Context) error {
	list, err := w.list(ctx)
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	var errs []error
	blobs, bytes, kept := map[digest.Digest]bool{}, int64(0), 0
	for _, image := range list {
		if image.Labels[LabelPin] == "true" {
			continue
		}
		size, err := w.sizeOf(ctx, image.Target, blobs)
		if err != nil {
			errs = append(errs, fmt.Errorf("retention: %s: %w", image.Name, err))
		}
		bytes += size
		if image.Name == w.out.Name || kept < w.o.Keep && (w.o.MaxBytes == 0 || bytes <= w.o.MaxBytes) {
			kept++
			continue
		}
		if err := w.o.Store.Images.Delete(ctx, image.Name); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			errs = append(errs, fmt.Errorf("retention: %s: %w", image.Name, err))
		}
	}
	return errors.Join(errs...)
}

// list returns the images of the container, the one just published first, then
// by age. Those of an earlier container of the same name count too.
func (w *publication) list(ctx context.Context) ([]images.Image, error) {
	o := &w.o.Origin
	list, err := w.o.Store.Images.List(ctx, `labels."`+labelContainer+`"=="`+o.ID+`"`)
	if err != nil {
		return nil, err
	}
	prefix, latest := Name(o.Namespace, o.ID, ""), Name(o.Namespace, o.ID, Latest)
	list = slices.DeleteFunc(list, func(i images.Image) bool {
		return !strings.HasPrefix(i.Name, prefix) || i.Name == latest
	})
	age := func(i images.Image) string {
		if i.Name == w.out.Name {
			return "~" // behind every time
		}
		return i.Labels[labelTime]
	}
	slices.SortFunc(list, func(a, b images.Image) int { return strings.Compare(age(b), age(a)) })
	return list, nil
}

// sizeOf returns the bytes of an image's blobs that are not in seen, and puts
// them there.
func (w *publication) sizeOf(ctx context.Context, target ocispec.Descriptor, seen map[digest.Digest]bool) (n int64, err error) {
	b, err := readBlob(ctx, w.o.Store.Content, target, maxManifest)
	if err != nil {
		return 0, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return 0, err
	}
	for _, d := range append(m.Layers, m.Config, target) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			n += d.Size
		}
	}
	return n, nil
}
