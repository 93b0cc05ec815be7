package oci

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Find returns the images that a reference stands for, best first. That is one,
// unless the tag is Latest: then the images of lower sequence numbers follow, in
// case the newest can't be used. A reference with a digest is found under any
// tag of that name, whether or not it gives one itself: the digest decides.
//
// Errors: errdefs.ErrNotFound, and those of the store.
func (s *Store) Find(ctx context.Context, ref string) ([]images.Image, error) {
	image, err := s.Images.Get(ctx, ref)
	name, dgst, byDigest := strings.Cut(ref, "@")
	repository, latest := strings.CutSuffix(ref, ":"+Latest)
	switch {
	case err != nil && !errors.Is(err, errdefs.ErrNotFound):
		return nil, fmt.Errorf("image %s: %w", ref, err)
	case latest:
		return s.findLatest(ctx, repository, image, err)
	case err == nil:
		return []images.Image{image}, nil
	case !byDigest:
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	list, lerr := s.Images.List(ctx, `target.digest==`+dgst)
	if lerr != nil {
		return nil, fmt.Errorf("image %s: %w", ref, lerr)
	}
	repository = withoutTag(name)
	for _, i := range list {
		if i.Target.Digest == digest.Digest(dgst) && withoutTag(i.Name) == repository {
			return []images.Image{i}, nil
		}
	}
	return nil, fmt.Errorf("image %s: %w", ref, err)
}

// withoutTag is a name without its tag; the port of a registry is none.
func withoutTag(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

// findLatest lists an image with the tag Latest, if err is nil, and those with a
// number.
func (s *Store) findLatest(ctx context.Context, repository string, latest images.Image, err error) ([]images.Image, error) {
	all, lerr := s.Images.List(ctx)
	if lerr != nil {
		return nil, fmt.Errorf("images: %w", lerr)
	}
	number := func(i images.Image) (uint64, bool) {
		tag, ok := strings.CutPrefix(i.Name, repository+":")
		n, perr := strconv.ParseUint(tag, 10, 64)
		return n, ok && perr == nil
	}
	all = slices.DeleteFunc(all, func(i images.Image) bool {
		_, ok := number(i)
		return !ok || err == nil && i.Target.Digest == latest.Target.Digest
	})
	slices.SortFunc(all, func(a, b images.Image) int {
		x, _ := number(a)
		y, _ := number(b)
		if x > y {
			return -1
		}
		return 1
	})
	if err == nil {
		all = append([]images.Image{latest}, all...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("image %s:%s: %w", repository, Latest, err)
	}
	return all, nil
}
