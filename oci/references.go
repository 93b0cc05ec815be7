package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// references are the labels with which the blob of a manifest keeps containerd's
// garbage collection from what the image consists of.
func references(m *ocispec.Manifest) map[string]string {
	labels := map[string]string{labelGC + "config": m.Config.Digest.String()}
	for i, l := range m.Layers {
		labels[labelGCLayer+strconv.Itoa(i)] = l.Digest.String()
	}
	return labels
}

// Keep gives an image that came from elsewhere the labels of those that are made
// here: ctr content prune references takes the ones that imports and pulls give.
//
// Errors: those of Inspect.
func (s *Store) Keep(ctx context.Context, target ocispec.Descriptor, trust *Trust) error {
	if err := s.keep(ctx, target, trust); err != nil {
		return fmt.Errorf("keep image %s: %w", target.Digest, err)
	}
	return nil
}

func (s *Store) keep(ctx context.Context, target ocispec.Descriptor, trust *Trust) error {
	if _, err := Inspect(ctx, s.Content, target, trust); err != nil {
		return err
	}
	b, err := readBlob(ctx, s.Content, target, maxManifest)
	if err != nil {
		return err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return damaged("manifest", "%v", err)
	}
	have, err := s.Content.Info(ctx, target.Digest)
	if err != nil {
		return err
	}
	labels := references(&m)
	var paths []string
	for name, value := range labels {
		if have.Labels[name] != value {
			paths = append(paths, "labels."+name)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	_, err = s.Content.Update(ctx, content.Info{Digest: target.Digest, Labels: labels}, paths...)
	return err
}
