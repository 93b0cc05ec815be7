package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Retention says which images of a container stay: the newest always, pinned
// ones always and not counted, and of the others those that one of Last, Hourly
// and Daily keeps, as long as they fit in MaxBytes.
type Retention struct {
	// Last is the number of newest images that stay; 0 is DefaultKeep.
	Last int
	// Hourly and Daily are numbers of hours and days (UTC) that have images; the
	// newest image of each stays.
	Hourly, Daily int
	// MaxBytes is what the images of the container may take together,
	// compressed; 0: no limit.
	MaxBytes int64
	// NodeMaxBytes is what the images of all containers in all namespaces may
	// take together; 0: no limit. The oldest go first.
	NodeMaxBytes int64
}

func (r *Retention) defaultsAndValidate() error {
	if r.Last == 0 {
		r.Last = DefaultKeep
	}
	if r.Last < 0 || r.Hourly < 0 || r.Daily < 0 || r.MaxBytes < 0 || r.NodeMaxBytes < 0 {
		return fmt.Errorf("retention: %+v has a negative number", *r)
	}
	return nil
}

// surplus returns those of a container's images, the newest first, that do not
// stay. Sizes must be known where MaxBytes is set.
func (r *Retention) surplus(list []Entry) []Entry {
	var drop []Entry
	hours, days := newPeriods(time.Hour, r.Hourly), newPeriods(24*time.Hour, r.Daily)
	last, bytes := 0, int64(0)
	for i, e := range list {
		if e.Pinned {
			continue
		}
		last++
		// Both count, whatever the other says.
		wanted := hours.first(e.Time)
		wanted = days.first(e.Time) || wanted || last <= r.Last
		if wanted {
			bytes += e.OwnBytes
			wanted = r.MaxBytes == 0 || bytes <= r.MaxBytes
		}
		if !wanted && i > 0 {
			drop = append(drop, e)
		}
	}
	return drop
}

// periods finds the newest image of each of the last n periods that have one.
type periods struct {
	length time.Duration
	left   int
	at     time.Time
}

func newPeriods(length time.Duration, n int) *periods { return &periods{length: length, left: n} }

// first is called with times that only go back.
func (p *periods) first(t time.Time) bool {
	at := t.UTC().Truncate(p.length)
	if p.left == 0 || at.Equal(p.at) {
		return false
	}
	p.at = at
	p.left--
	return true
}

// prune removes the names of images beyond what is to be kept. containerd's
// garbage collection then removes the blobs that no image refers to; a chain's
// layers stay as long as one of its images.
func (w *publication) prune(ctx context.Context) error {
	o := &w.o.Origin
	list, errs := w.o.Store.measured(ctx, o.Namespace, o.ID)
	// One that somebody has spoiled takes nothing; its time comes like that of
	// others. As a failure it would have each later checkpoint published again
	// and again.
	err := errors.Join(slices.DeleteFunc(errs, func(err error) bool {
		return errors.Is(err, ErrIncomplete) || errors.Is(err, ErrCorrupt)
	})...)
	if err != nil {
		err = fmt.Errorf("retention: %w", err)
	}
	// The one just published counts as the newest, whatever the clock says.
	if i := slices.IndexFunc(list, func(e Entry) bool { return e.Name == w.out.Name }); i > 0 {
		newest := list[i]
		list = slices.Insert(slices.Delete(list, i, i+1), 0, newest)
	}
	err = errors.Join(err, w.o.Store.remove(ctx, append(secondNames(list), w.o.Retention.surplus(list)...)))
	if w.o.Retention.NodeMaxBytes > 0 {
		err = errors.Join(err, w.o.Store.pruneNode(ctx, w.o.Retention.NodeMaxBytes))
	}
	return err
}

// secondNames returns the entries for images that have their first name still:
// a publication was killed in keepPinned. Otherwise who takes the pin from one
// name would leave the image with the other.
func secondNames(list []Entry) (out []Entry) {
	for _, e := range list {
		number, _, renamed := strings.Cut(e.Tag(), "-")
		if renamed && slices.ContainsFunc(list, func(o Entry) bool {
			return o.Tag() == number && o.Target.Digest == e.Target.Digest
		}) {
			out = append(out, e)
		}
	}
	return out
}

// remove deletes the names of images.
func (s *Store) remove(ctx context.Context, list []Entry) error {
	var errs []error
	for _, e := range list {
		ctx := namespaces.WithNamespace(ctx, e.Namespace)
		if err := s.Images.Delete(ctx, e.Name); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			errs = append(errs, fmt.Errorf("retention: %s: %w", e.Name, err))
		}
	}
	return errors.Join(errs...)
}

// pruneNode removes the oldest images of all containers of the node until the
// rest takes no more than max bytes. The newest of each container stays.
func (s *Store) pruneNode(ctx context.Context, max int64) error {
	list, err := s.ofNode(ctx)
	if err != nil {
		return fmt.Errorf("retention: %w", err)
	}
	type blob struct {
		size int64
		uses int
	}
	type owner struct{ namespace, container string }
	// containerd stores a blob once for all namespaces.
	blobs, total, newest := map[digest.Digest]*blob{}, int64(0), map[owner]string{}
	for _, e := range list {
		if o := (owner{e.Namespace, e.Container}); newest[o] == "" {
			newest[o] = e.Name
		}
		for _, d := range e.blobs {
			if blobs[d.Digest] == nil {
				blobs[d.Digest] = &blob{size: d.Size}
				total += d.Size
			}
			blobs[d.Digest].uses++
		}
	}
	var drop []Entry
	for _, e := range slices.Backward(list) {
		if total <= max {
			break
		}
		if e.Pinned || newest[owner{e.Namespace, e.Container}] == e.Name {
			continue
		}
		drop = append(drop, e)
		for _, d := range e.blobs {
			if b := blobs[d.Digest]; b.uses > 1 {
				b.uses--
			} else {
				total -= b.size
				delete(blobs, d.Digest)
			}
		}
	}
	return s.remove(ctx, drop)
}

// ofNode lists the images of all containers, the newest first. One whose
// manifest can't be read takes nothing.
func (s *Store) ofNode(ctx context.Context) ([]Entry, error) {
	all, err := s.Namespaces.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("namespaces: %w", err)
	}
	var out []Entry
	for _, ns := range all {
		ctx := namespaces.WithNamespace(ctx, ns)
		list, err := s.entries(ctx, ns, `labels."`+labelContainer+`"`)
		if err != nil {
			return nil, fmt.Errorf("namespace %s: %w", ns, err)
		}
		for i := range list {
			_ = list[i].readBlobs(ctx, s)
		}
		out = append(out, list...)
	}
	slices.SortFunc(out, newestFirst)
	return out, nil
}

// readBlobs lists what an image consists of, each blob once.
func (e *Entry) readBlobs(ctx context.Context, s *Store) error {
	b, err := readBlob(ctx, s.Content, e.Target, maxManifest)
	if err != nil {
		return err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("%w: manifest: %w", ErrCorrupt, err)
	}
	for _, d := range append(m.Layers, m.Config, e.Target) {
		if !slices.ContainsFunc(e.blobs, func(o ocispec.Descriptor) bool { return o.Digest == d.Digest }) {
			e.blobs = append(e.blobs, d)
		}
	}
	return nil
}
