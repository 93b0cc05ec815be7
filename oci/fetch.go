package oci

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FetchOptions say what Fetch accepts.
type FetchOptions struct {
	// Trust is required.
	Trust *Trust
	// Bytes that all layers together may unpack to; 0 is DefaultFetchBytes.
	Bytes int64
	// Files that a checkpoint may consist of; 0 is DefaultFetchFiles.
	Files int
	// Transient: the checkpoint is used at once and then removed, so it need not
	// be durable. The directory must not be used after a crash of the host.
	Transient bool
}

// Defaults of FetchOptions.
const (
	DefaultFetchBytes = 64 << 30
	DefaultFetchFiles = 1 << 16
)

// fetch is one Fetch under way.
type fetch struct {
	ctx     context.Context
	from    content.Provider
	trust   *Trust
	root    *os.Root // the directory that becomes the checkpoint's
	scratch *os.Root // for pages of sources
	bytes   int64    // left
	files   int      // left
	info    *Info
	trees   map[string]bool
}

// Fetch writes the checkpoint that an image holds into dir, which must not
// exist; its parent must. When Fetch returns without an error dir is complete
// and, unless it is transient, durable; otherwise it does not exist.
//
// Errors: ErrNotCheckpoint, ErrUnsupportedVersion, ErrCorrupt, ErrTooLarge,
// ErrIncomplete, ErrUntrusted, ErrUnreadable.
func Fetch(ctx context.Context, from content.Provider, target ocispec.Descriptor, dir string, o FetchOptions) (*Info, error) {
	info, err := fetchInto(ctx, from, target, dir, o)
	if err != nil {
		return nil, fmt.Errorf("fetch checkpoint image %s: %w", target.Digest, err)
	}
	return info, nil
}

func fetchInto(ctx context.Context, from content.Provider, target ocispec.Descriptor, dir string, o FetchOptions) (_ *Info, err error) {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fs.ErrExist, err)
	}
	f := &fetch{ctx: ctx, from: from, trust: o.Trust, bytes: o.Bytes, files: o.Files, trees: map[string]bool{}}
	if f.bytes == 0 {
		f.bytes = DefaultFetchBytes
	}
	if f.files == 0 {
		f.files = DefaultFetchFiles
	}
	parts := &parts{}
	if f.info, parts, err = readManifest(ctx, from, target, o.Trust); err != nil {
		return nil, err
	}
	stage, err := os.MkdirTemp(filepath.Dir(dir), ".fetch-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	done := filepath.Join(stage, "checkpoint")
	if err := f.open(stage, done); err != nil {
		return nil, err
	}
	err = f.run(parts)
	if err = errors.Join(err, f.root.Close(), f.scratch.Close()); err != nil {
		return nil, err
	}
	if o.Transient {
		return f.info, os.Rename(done, dir)
	}
	if err := syncAll(done); err != nil {
		return nil, err
	}
	if err := os.Rename(done, dir); err != nil {
		return nil, err
	}
	return f.info, syncOne(filepath.Dir(dir))
}

func (f *fetch) open(stage, done string) (err error) {
	scratch := filepath.Join(stage, "pages")
	for _, d := range []string{done, filepath.Join(done, "images"), scratch} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	if f.root, err = os.OpenRoot(done); err != nil {
		return err
	}
	if f.scratch, err = os.OpenRoot(scratch); err != nil {
		return errors.Join(err, f.root.Close())
	}
	return nil
}

func (f *fetch) run(p *parts) error {
	err := f.unzip(p.state, func(r io.Reader) error { return readState(r, f.stateFile) })
	if err != nil {
		return err
	}
	if p.pages != nil {
		if err := f.memory(p); err != nil {
			return err
		}
	}
	for path, desc := range p.files {
		err := f.unzip(desc, func(r io.Reader) error { return f.write(path, r) })
		if err != nil {
			return err
		}
	}
	for _, name := range []string{"cut.json", "images/inventory.img"} {
		if _, err := f.root.Lstat(name); err != nil {
			return damaged("image", "%s is missing", name)
		}
	}
	// The snapshots of the file system are durable when all of this is, on
	// whatever machine: that is what this file says (layer/FORMAT.md).
	for tree := range f.trees {
		if err := f.root.WriteFile(tree+"/synced", nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// dumpLimit bounds what is kept in memory of an image's descriptions.
const dumpLimit = 16 << 20

// stateFile takes a file of the standard layer.
func (f *fetch) stateFile(name string, size int64, r io.Reader) error {
	switch name {
	case nameRootfs:
		return nil // the snapshot holds the same, and more exactly
	case nameConfig, nameSpec:
		if size > dumpLimit {
			return fmt.Errorf("%w: %s has %d bytes", ErrTooLarge, name, size)
		}
		b, err := io.ReadAll(r)
		if name == nameConfig {
			f.info.Config = b
		} else {
			f.info.Spec = b
		}
		return err
	}
	dest, ok := destination(name)
	if !ok {
		return damaged("standard layer", "it has a file %.100q", name)
	}
	return f.write(dest, r)
}

// write makes a file in the checkpoint's directory. path comes from
// destination or from a checked annotation.
func (f *fetch) write(path string, r io.Reader) error {
	if f.files--; f.files < 0 {
		return fmt.Errorf("%w: too many files", ErrTooLarge)
	}
	if tree := filepath.Dir(path); tree != "." && tree != "images" && !f.trees[tree] {
		f.trees[tree] = true
		if err := f.root.Mkdir(tree, 0o700); err != nil {
			return err
		}
	}
	out, err := f.root.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return damaged("image", "%s comes twice", path)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	return errors.Join(err, out.Close())
}

// memory puts the files of pages together.
func (f *fetch) memory(p *parts) error {
	var d *delta
	err := f.unzip(*p.pages, func(r io.Reader) (err error) {
		b := bufio.NewReaderSize(r, 64<<10)
		if d, err = readDelta(b, uint64(f.bytes)/pageSize); err != nil {
			return err
		}
		return f.scratchFile("own", b, int64(d.own)*pageSize)
	})
	if err != nil {
		return err
	}
	for i, s := range d.sources {
		desc, ok := p.sources[s.String()]
		if !ok {
			return damaged("manifest", "the layer %s with pages is not in it", s)
		}
		if err := f.source(desc, i); err != nil {
			return err
		}
	}
	for _, file := range d.files {
		if err := f.assemble(&file); err != nil {
			return err
		}
	}
	return nil
}

func syncAll(dir string) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncOne(path)
	})
}

func syncOne(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
