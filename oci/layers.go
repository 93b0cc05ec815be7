package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layers uploads what the image consists of, in the order of the manifest.
func (w *publication) layers(ctx context.Context) ([]layer, error) {
	for _, it := range w.inv.pages {
		w.out.MemoryBytes += it.size
	}
	usable, err := w.chainUsable(ctx)
	if err != nil {
		return nil, err
	}
	var all []layer
	if usable {
		all, err = w.increment(ctx)
	} else {
		all, err = w.full(ctx)
	}
	if err != nil {
		return nil, err
	}
	packs, err := w.packs(ctx)
	return append(all, packs...), err
}

// chainUsable reports whether there is a chain to build upon. Afterwards its
// layers are held.
func (w *publication) chainUsable(ctx context.Context) (bool, error) {
	if w.chain == nil || w.chain.worn(w.o.Chain) {
		return false, nil
	}
	for _, l := range w.chain.pages {
		err := w.up.hold(ctx, l.desc)
		if errors.Is(err, errdefs.ErrNotFound) {
			return false, nil // somebody removed the images
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// full uploads everything, and begins a chain.
func (w *publication) full(ctx context.Context) ([]layer, error) {
	table, n := &pageTable{}, uint32(0)
	var records []byte
	state, err := w.state(ctx, 0, func(p []byte) {
		records = appendRecord(records, idOf(p), place{0, n})
		n++
	})
	if err != nil {
		return nil, err
	}
	w.out.ChangedBytes = w.out.MemoryBytes
	table.add(records)
	source := state
	source.desc.Annotations = map[string]string{annotationRole: roleSource}
	w.next = &chain{pages: []layer{source}}
	w.next.table, err = w.keepTable(table)
	return []layer{state}, err
}

// increment uploads the pages that are new.
func (w *publication) increment(ctx context.Context) ([]layer, error) {
	table, err := loadTable(w.chain.table)
	if err != nil {
		return nil, errors.Join(err, w.dropChain()) // the next one begins anew
	}
	number := uint32(len(w.chain.pages))
	c, err := compare(ctx, w.inv.pages, table, number)
	if err != nil {
		return nil, err
	}
	w.out.Chain, w.out.ChangedBytes = int(number), int64(c.own)*pageSize
	all := c.bind(w.chain.pages)
	state, err := w.state(ctx, int(number), nil)
	if err != nil {
		return nil, err
	}
	pages, err := w.up.layer(ctx, mediaTypePages, map[string]string{annotationRole: rolePages}, func(out io.Writer) error {
		return c.write(ctx, out, w.inv.pages)
	})
	if err != nil {
		return nil, err
	}
	table.add(c.added)
	source := pages
	source.desc.Annotations = map[string]string{annotationRole: roleSource}
	w.next = &chain{pages: append(slices.Clone(w.chain.pages), source), bytes: w.chain.bytes + pages.desc.Size}
	w.next.table, err = w.keepTable(table)
	return append(all, state, pages), err
}

// state uploads the standard layer.
func (w *publication) state(ctx context.Context, chain int, page func([]byte)) (layer, error) {
	o := &w.o.Origin
	spec, annotations, err := o.specDump()
	if err != nil {
		return layer{}, fmt.Errorf("spec: %w", err)
	}
	config, err := o.configDump(w.cp.Time, annotations[criName])
	if err != nil {
		return layer{}, err
	}
	return w.up.layer(ctx, mediaTypeState, map[string]string{annotationRole: roleState}, func(out io.Writer) error {
		t := newStateTar(ctx, out, w.cp.Time)
		t.page = page
		return t.write(w.inv, dumps{config: config, spec: spec}, w.cp.Rootfs)
	})
}

// packs uploads the large packs of files, those that an image before has not.
func (w *publication) packs(ctx context.Context) ([]layer, error) {
	var all []layer
	for _, it := range w.inv.packs {
		annotations := map[string]string{annotationRole: roleFile, annotationPath: it.name}
		l, ok := w.files[it.key]
		if ok {
			err := w.up.hold(ctx, l.desc)
			if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				return nil, err
			}
			ok = err == nil
			l.desc.Annotations = annotations
		}
		if !ok {
			var err error
			l, err = w.up.layer(ctx, mediaTypeFile, annotations, func(out io.Writer) error {
				f, err := it.open()
				if err != nil {
					return err
				}
				defer f.Close()
				return copyExactly(ctx, out, f, it.size, make([]byte, 256<<10))
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", it.name, err)
			}
		}
		w.kept[it.key] = l
		all = append(all, l)
	}
	return all, nil
}

// manifest uploads configuration and manifest.
func (w *publication) manifest(ctx context.Context, all []layer) (ocispec.Descriptor, error) {
	o := &w.o.Origin
	_, spec, err := o.specDump()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	at := w.cp.Time.UTC()
	config := ocispec.Image{
		Created: &at, Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: runtime.GOOS},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Annotations: o.annotations(w.cp, spec, w.out.Chain),
	}
	for _, l := range all {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
		m.Layers = append(m.Layers, l.desc)
	}
	b, err := json.Marshal(config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if m.Config, err = w.up.bytesBlob(ctx, ocispec.MediaTypeImageConfig, nil, b); err != nil {
		return ocispec.Descriptor{}, err
	}
	if b, err = marshalSigned(m, w.o.Signer); err != nil {
		return ocispec.Descriptor{}, err
	}
	return w.up.bytesBlob(ctx, ocispec.MediaTypeImageManifest, references(&m), b)
}
