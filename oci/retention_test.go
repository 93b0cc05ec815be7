package oci

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/require"
)

// TestSurplus: an image every ten minutes for ten days; what stays.
func TestSurplus(t *testing.T) {
	begin := time.Date(2026, 11, 10, 0, 0, 0, 0, time.UTC)
	var list []Entry
	for i := range 10 * 24 * 6 {
		list = append(list, Entry{Sequence: uint64(i), Time: begin.Add(time.Duration(i) * 10 * time.Minute), OwnBytes: 10})
	}
	slices.SortFunc(list, newestFirst)
	stay := func(r Retention, list []Entry) (out []string) {
		t.Helper()
		require.NoError(t, r.defaultsAndValidate())
		drop := r.surplus(list)
		for _, e := range list {
			if !slices.ContainsFunc(drop, func(d Entry) bool { return d.Sequence == e.Sequence }) {
				out = append(out, e.Time.Format("02 15:04"))
			}
		}
		return out
	}
	require.Equal(t, []string{"19 23:50", "19 23:40", "19 23:30"}, stay(Retention{Last: 3}, list))
	require.Equal(t, []string{"19 23:50", "19 23:40", "19 22:50", "19 21:50"}, stay(Retention{Last: 2, Hourly: 3}, list))
	require.Equal(t, []string{"19 23:50", "19 22:50", "18 23:50", "17 23:50"}, stay(Retention{Last: 1, Hourly: 2, Daily: 3}, list))
	require.Equal(t, []string{"19 23:50", "19 23:40"}, stay(Retention{Last: 3, Daily: 5, MaxBytes: 20}, list), "bytes limit all of them")
	require.Equal(t, []string{"19 23:50"}, stay(Retention{MaxBytes: 1}, list), "the newest stays")

	// Hours without an image do not count.
	require.Equal(t, []string{"19 23:50", "12 00:00", "11 23:50"}, stay(Retention{Last: 1, Daily: 3},
		append(list[:1:1], list[len(list)-2*24*6-1:]...)))

	list[0].Pinned, list[5].Pinned = true, true
	require.Equal(t, []string{"19 23:50", "19 23:40", "19 23:00"}, stay(Retention{Last: 1}, list), "pinned ones do not count")
	require.Error(t, (&Retention{Daily: -1}).defaultsAndValidate())
}

// TestNodeRetention: the oldest of all containers go, in all namespaces.
func TestNodeRetention(t *testing.T) {
	d := newDaemon(t)
	f := newFake(100)
	p := d.publisher(Options{Chain: 1})
	var size, total int64
	begin := time.Now().Add(-time.Hour)
	for i := range 4 {
		f.change(100)
		cp := f.write(t, tempDir(t))
		cp.Time = begin.Add(time.Duration(i) * time.Minute)
		out, err := p.Publish(t.Context(), cp)
		require.NoError(t, err)
		size, total = out.Bytes, total+out.Bytes
	}
	// A container in another namespace has images of the same blobs, older ones.
	other := namespaces.WithNamespace(context.Background(), "other")
	for _, tag := range []string{"1", "2"} {
		image, err := d.Images.Get(d.ctx, name(tag))
		require.NoError(t, err)
		lent, err := d.Images.Create(other, images.Image{
			Name: Name("other", testID, tag), Target: image.Target, Labels: map[string]string{
				labelContainer: testID, labelTime: begin.Add(-time.Hour).UTC().Format(timeFormat),
			},
		})
		require.NoError(t, err)
		b, err := readBlob(d.ctx, d.Content, lent.Target, maxManifest)
		require.NoError(t, err)
		require.NotEmpty(t, b)
	}
	names := func() (out []string) {
		out = d.names()
		list, err := d.Images.List(other)
		require.NoError(t, err)
		for _, i := range list {
			out = append(out, i.Name)
		}
		for i := range out {
			out[i] = strings.TrimPrefix(out[i], registry)
		}
		slices.Sort(out)
		return out
	}
	mine := component(testID) + ":"
	require.NoError(t, d.pruneNode(d.ctx, total))
	require.Len(t, names(), 4+2+1, "it fits")
	require.NoError(t, d.Pin(d.ctx, testNamespace, testID, "2", true))
	require.NoError(t, d.pruneNode(d.ctx, total-size/2))
	require.Equal(t, []string{"ns/" + mine + "2", "ns/" + mine + "3", "ns/" + mine + "4", "ns/" + mine + "latest", "other/" + mine + "2"}, names())
	require.NoError(t, d.pruneNode(d.ctx, 1))
	require.Equal(t, []string{"ns/" + mine + "2", "ns/" + mine + "4", "ns/" + mine + "latest", "other/" + mine + "2"}, names(), "pinned ones and the newest of each stay")
}

// TestPins: a pinned image stays, whatever comes.
func TestPins(t *testing.T) {
	d := newDaemon(t)
	f := newFake(100)
	p := d.publisher(Options{Retention: Retention{Last: 1}})
	publish := func() Published {
		t.Helper()
		f.change(5)
		cp := f.write(t, tempDir(t))
		cp.Time = time.Now()
		out, err := p.Publish(t.Context(), cp)
		require.NoError(t, err)
		return out
	}
	first := publish()
	require.NoError(t, d.Pin(d.ctx, testNamespace, testID, "1", true))
	require.ErrorIs(t, d.Pin(d.ctx, testNamespace, testID, "7", true), ErrNoImage)
	publish()
	list, err := d.Catalog(d.ctx, testNamespace, testID)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, []uint64{2, 1}, []uint64{list[0].Sequence, list[1].Sequence})
	require.Equal(t, []bool{false, true}, []bool{list[0].Pinned, list[1].Pinned})
	require.Positive(t, list[1].OwnBytes)
	require.Less(t, list[1].OwnBytes, list[1].Bytes, "they share the beginning of the chain")

	// A new container of the same name counts from 1 again.
	f.seq = 0
	publish()
	image, err := d.Images.Get(d.ctx, name("1-"+first.Target.Digest.Encoded()[:8]))
	require.NoError(t, err)
	require.Equal(t, first.Target.Digest, image.Target.Digest)
	require.NoError(t, d.Pin(d.ctx, testNamespace, testID, "1", true))
	require.NoError(t, d.Pin(d.ctx, testNamespace, testID, "1", false))
	publish()
	require.ElementsMatch(t, []string{image.Name, name("2"), name(Latest)}, d.names(), "an image that is no longer pinned goes")
	d.collectGarbage()
	_, err = Fetch(d.ctx, d.Content, image.Target, tempDir(t)+"/out", anyone())
	require.NoError(t, err)

	list, err = d.Catalog(d.ctx, testNamespace, testID)
	require.NoError(t, err)
	earlier := list[slices.IndexFunc(list, func(e Entry) bool { return e.Name == image.Name })]
	require.NoError(t, d.Pin(d.ctx, testNamespace, testID, earlier.Tag(), false))
	for _, tag := range []string{Latest, "", "2/../1", "x"} {
		require.ErrorIs(t, d.Pin(d.ctx, testNamespace, testID, tag, true), ErrNoImage, tag)
	}
	publish()
	require.ElementsMatch(t, []string{name("3"), name(Latest)}, d.names(), "nor does one of an earlier container")
}

// TestSpoiledImage: somebody removes or overwrites the manifest of an image.
// Later ones are published as ever, and it goes when its time comes.
func TestSpoiledImage(t *testing.T) {
	for _, spoil := range []func(path string) error{
		os.Remove,
		func(path string) error { return os.Truncate(path, 10) },
		func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 100), 0o600) },
	} {
		d, f := newDaemon(t), newFake(20)
		p := d.publisher(Options{Retention: Retention{Last: 3, MaxBytes: 1 << 30, NodeMaxBytes: 1 << 30}})
		publish := func() Published {
			t.Helper()
			f.change(3)
			out, err := p.Publish(t.Context(), f.write(t, tempDir(t)))
			require.NoError(t, err)
			d.fetch(Latest, f)
			return out
		}
		publish()
		require.NoError(t, spoil(filepath.Join(d.dir, "content", "blobs", "sha256", publish().Target.Digest.Encoded())))
		publish()
		_, err := d.Catalog(d.ctx, testNamespace, testID)
		require.ErrorContains(t, err, name("2"), "who asks is told")
		publish()
		require.Contains(t, d.names(), name("2"))
		publish()
		require.ElementsMatch(t, []string{name("3"), name("4"), name("5"), name(Latest)}, d.names())
	}
}
