package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// faults fails the calls of a store: from the at-th on all of them, as if we
// had been killed, or only that one, or every write as on a full disk.
type faults struct {
	calls, at int
	once      bool
	full      bool
	dying     func() // called at the at-th
	named     int    // the first call that gave an image a name
}

var errFault = errors.New("fault")

func (f *faults) step() error {
	f.calls++
	if f.calls == f.at && f.dying != nil {
		f.dying()
	}
	if f.at > 0 && (f.calls == f.at || f.calls > f.at && !f.once) {
		return errFault
	}
	return nil
}

func (f *faults) wrap(s *Store) *Store {
	return &Store{
		Content: faultyContent{s.Content, f}, Images: faultyImages{s.Images, f}, Leases: faultyLeases{s.Leases, f},
		Containers: s.Containers, Namespaces: faultyNamespaces{s.Namespaces, f},
	}
}

type faultyNamespaces struct {
	Namespaces
	f *faults
}

func (n faultyNamespaces) List(ctx context.Context) ([]string, error) {
	if err := n.f.step(); err != nil {
		return nil, err
	}
	return n.Namespaces.List(ctx)
}

type faultyContent struct {
	content.Store
	f *faults
}

func (c faultyContent) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	if err := c.f.step(); err != nil {
		return nil, err
	}
	w, err := c.Store.Writer(ctx, opts...)
	return faultyWriter{w, c.f}, err
}

func (c faultyContent) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	if err := c.f.step(); err != nil {
		return content.Info{}, err
	}
	return c.Store.Info(ctx, d)
}

func (c faultyContent) Abort(ctx context.Context, ref string) error {
	if err := c.f.step(); err != nil {
		return err
	}
	return c.Store.Abort(ctx, ref)
}

func (c faultyContent) ListStatuses(ctx context.Context, filters ...string) ([]content.Status, error) {
	if err := c.f.step(); err != nil {
		return nil, err
	}
	return c.Store.ListStatuses(ctx, filters...)
}

func (c faultyContent) ReaderAt(ctx context.Context, d ocispec.Descriptor) (content.ReaderAt, error) {
	if err := c.f.step(); err != nil {
		return nil, err
	}
	return c.Store.ReaderAt(ctx, d)
}

type faultyWriter struct {
	content.Writer
	f *faults
}

func (w faultyWriter) Write(p []byte) (int, error) {
	if err := w.f.step(); err != nil {
		n, _ := w.Writer.Write(p[:len(p)/2])
		return n, err
	}
	if w.f.full {
		return 0, unix.ENOSPC
	}
	return w.Writer.Write(p)
}

func (w faultyWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	if err := w.f.step(); err != nil {
		return err
	}
	return w.Writer.Commit(ctx, size, expected, opts...)
}

type faultyImages struct {
	images.Store
	f *faults
}

func (i faultyImages) Get(ctx context.Context, name string) (images.Image, error) {
	if err := i.f.step(); err != nil {
		return images.Image{}, err
	}
	return i.Store.Get(ctx, name)
}

func (i faultyImages) Create(ctx context.Context, image images.Image) (images.Image, error) {
	if err := i.f.step(); err != nil {
		return image, err
	}
	i.f.named = cmp.Or(i.f.named, i.f.calls)
	return i.Store.Create(ctx, image)
}

func (i faultyImages) Update(ctx context.Context, image images.Image, paths ...string) (images.Image, error) {
	if err := i.f.step(); err != nil {
		return image, err
	}
	return i.Store.Update(ctx, image, paths...)
}

func (i faultyImages) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	if err := i.f.step(); err != nil {
		return nil, err
	}
	return i.Store.List(ctx, filters...)
}

func (i faultyImages) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	if err := i.f.step(); err != nil {
		return err
	}
	return i.Store.Delete(ctx, name, opts...)
}

type faultyLeases struct {
	leases.Manager
	f *faults
}

func (l faultyLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	if err := l.f.step(); err != nil {
		return leases.Lease{}, err
	}
	return l.Manager.Create(ctx, opts...)
}

func (l faultyLeases) Delete(ctx context.Context, lease leases.Lease, opts ...leases.DeleteOpt) error {
	if err := l.f.step(); err != nil {
		return err
	}
	return l.Manager.Delete(ctx, lease, opts...)
}

func (l faultyLeases) AddResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	if err := l.f.step(); err != nil {
		return err
	}
	return l.Manager.AddResource(ctx, lease, r)
}

// TestEveryStep fails every call of a full and of an incremental publication,
// and looks at what is left: garbage collection runs right afterwards.
func TestEveryStep(t *testing.T) {
	for _, killed := range []bool{true, false} {
		for _, full := range []bool{true, false} {
			t.Run(fmt.Sprintf("killed=%t full=%t", killed, full), func(t *testing.T) {
				steps := 0
				for at := 1; oneStep(t, at, killed, full); at++ {
					steps++
				}
				require.Greater(t, steps, 20)
			})
		}
	}
}

// oneStep reports whether there was a step to fail.
func oneStep(t *testing.T, at int, killed, full bool) bool {
	d := newDaemon(t)
	fault := &faults{once: !killed}
	o := Options{Store: fault.wrap(d.Store), Retention: Retention{Last: 2}}
	if full {
		o.Chain = 1
	}
	p := d.publisher(o)
	f := newFake(20)
	dir := tempDir(t)
	// Two before, so that one has to go.
	for range 2 {
		f.change(3)
		_, err := p.Publish(t.Context(), f.write(t, dir))
		require.NoError(t, err)
	}
	before := f.clone()
	f.change(3)
	fault.calls, fault.at = 0, at
	out, err := p.Publish(t.Context(), f.write(t, dir))
	if fault.calls < at {
		require.NoError(t, err)
		return false
	}
	require.ErrorIs(t, err, errFault, "step %d", at)
	fault.at = 0
	d.collectGarbage()
	if out.Name != "" {
		d.fetch("3", f)
	} else {
		require.NotContains(t, d.names(), name("3"), "step %d", at)
		d.fetch(Latest, before)
	}
	d.fetch("2", before)
	if killed {
		// The shim is gone, and its container with it; the next one begins anew.
		p = d.publisher(Options{Retention: Retention{Last: 2}})
	}
	f.change(3)
	_, err = p.Publish(t.Context(), f.write(t, dir))
	require.NoError(t, err, "step %d", at)
	d.collectGarbage()
	d.fetch(Latest, f)
	d.requireTidy(name("4"), Name(testNamespace, testID, Latest))
	return true
}

// requireTidy checks that after the removal of all images nothing stays.
func (d *daemon) requireTidy(must ...string) {
	d.t.Helper()
	names := d.names()
	require.Subset(d.t, names, must)
	require.Len(d.t, names, 3, "two and latest")
	ls, err := d.Leases.List(d.ctx)
	require.NoError(d.t, err)
	require.Empty(d.t, ls)
	for _, n := range names {
		require.NoError(d.t, d.Images.Delete(d.ctx, n))
	}
	d.collectGarbage()
	require.Zero(d.t, d.blobs())
}

// TestFullDisk: it fails, it says why, and it heals by itself.
func TestFullDisk(t *testing.T) {
	d := newDaemon(t)
	fault := &faults{}
	p := d.publisher(Options{Store: fault.wrap(d.Store)})
	f := newFake(20)
	dir := tempDir(t)
	_, err := p.Publish(t.Context(), f.write(t, dir))
	require.NoError(t, err)
	before := f.clone()
	f.change(3)
	fault.full = true
	for range 3 {
		_, err = p.Publish(t.Context(), f.write(t, dir))
		require.ErrorIs(t, err, unix.ENOSPC)
	}
	d.collectGarbage()
	blobs := d.blobs()
	d.fetch(Latest, before)
	fault.full = false
	out, err := p.Publish(t.Context(), f.write(t, dir))
	require.NoError(t, err)
	require.Equal(t, 1, out.Chain)
	d.fetch(Latest, f)
	require.Greater(t, d.blobs(), blobs)
}

// TestCancelled: a publication ends with its context and leaves nothing.
func TestCancelled(t *testing.T) {
	d := newDaemon(t)
	p := d.publisher(Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := newFake(20)
	_, err := p.Publish(ctx, f.write(t, tempDir(t)))
	require.Error(t, err)
	d.collectGarbage()
	require.Zero(t, d.blobs())
	ls, err := d.Leases.List(d.ctx)
	require.NoError(t, err)
	require.Empty(t, ls)
}
