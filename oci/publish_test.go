package oci

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// TestChain: every image restores by itself, also when the ones before it are
// gone, and costs what has changed.
func TestChain(t *testing.T) {
	d := newDaemon(t)
	p := d.publisher(Options{Retention: Retention{Last: 1}, Chain: 4})
	f := newFake(1000)
	dir := tempDir(t)
	var chains []int
	for i := range 10 {
		out, err := p.Publish(t.Context(), f.write(t, dir))
		require.NoError(t, err)
		require.Equal(t, Name(testNamespace, testID, strconv.Itoa(i+1)), out.Name)
		require.EqualValues(t, 1003*pageSize, out.MemoryBytes)
		chains = append(chains, out.Chain)
		if out.Chain > 0 {
			require.EqualValues(t, 50*pageSize, out.ChangedBytes)
			require.Less(t, float64(out.Bytes), 1.1*float64(out.ChangedBytes))
		}
		d.collectGarbage()
		info := d.fetch(Latest, f)
		require.Equal(t, out.Chain, info.Chain)
		require.EqualValues(t, i+1, info.Sequence)
		require.Equal(t, testID, info.Container)
		require.Equal(t, "3", info.Annotations["crsc.io/connections"])
		require.Contains(t, string(info.Spec), `"io.kubernetes.cri.container-name":"App.1"`)
		require.ElementsMatch(t, []string{Name(testNamespace, testID, strconv.Itoa(i+1)), Name(testNamespace, testID, Latest)}, d.names())
		f.change(50)
	}
	require.Equal(t, []int{0, 1, 2, 3, 0, 1, 2, 3, 0, 1}, chains)
	ls, err := d.Leases.List(d.ctx)
	require.NoError(t, err)
	require.Empty(t, ls)
	// Only what the last image needs is left: manifest, configuration, state,
	// pages, one source and two packs.
	require.Equal(t, 7, d.blobs())
	files, err := os.ReadDir(p.o.Dir)
	require.NoError(t, err)
	require.Len(t, files, 2, "tables of chains that are over")
}

// TestResume: a publisher goes on where another one has ended, and what it can't
// read costs no more than a full image.
func TestResume(t *testing.T) {
	d := newDaemon(t)
	o := d.publisher(Options{Chain: 4}).o
	o.Resume = true
	f, dir := newFake(100), tempDir(t)
	var chains []int
	publish := func() Published {
		t.Helper()
		p, err := NewPublisher(o)
		require.NoError(t, err)
		f.change(5)
		out, err := p.Publish(t.Context(), f.write(t, dir))
		require.NoError(t, err)
		d.fetch(Latest, f)
		chains = append(chains, out.Chain)
		return out
	}
	for range 6 {
		out := publish()
		require.True(t, out.Chain == 0 || out.Bytes < 7*pageSize, "packs are shared: %d bytes", out.Bytes)
	}
	require.Equal(t, []int{0, 1, 2, 3, 0, 1}, chains)
	// Killed between the new table and the removal of the one before.
	for _, name := range []string{"pages.1", "pages.99", chainFile + ".new"} {
		require.NoError(t, os.WriteFile(filepath.Join(o.Dir, name), []byte("left"), 0o600))
	}
	require.Equal(t, 2, publish().Chain)
	files, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	require.Len(t, files, 2)
	state := filepath.Join(o.Dir, chainFile)
	for _, spoil := range []func() error{
		func() error { return os.WriteFile(state, []byte("{"), 0o600) },
		func() error { return os.WriteFile(state, []byte("{}"), 0o600) },
		func() error { return os.Remove(state) },
		func() error {
			tables, err := filepath.Glob(filepath.Join(o.Dir, "pages.*"))
			require.Len(t, tables, 1)
			return errors.Join(err, os.Remove(tables[0]))
		},
	} {
		require.NoError(t, spoil())
		require.Zero(t, publish().Chain)
		require.Equal(t, 1, publish().Chain)
	}
}

// TestLargeChanges: a chain that has grown larger than its beginning ends.
func TestLargeChanges(t *testing.T) {
	d := newDaemon(t)
	p := d.publisher(Options{})
	f := newFake(100)
	var chains []int
	for range 5 {
		out, err := p.Publish(t.Context(), f.write(t, tempDir(t)))
		require.NoError(t, err)
		d.fetch(Latest, f)
		chains = append(chains, out.Chain)
		f.files["images/pages-1.img"] = f.random(100 * pageSize)
	}
	require.Equal(t, []int{0, 1, 2, 0, 1}, chains)
}

// TestNothingChanged: two images of the same memory share all of it.
func TestNothingChanged(t *testing.T) {
	d := newDaemon(t)
	p := d.publisher(Options{})
	f := newFake(1000)
	dir := tempDir(t)
	_, err := p.Publish(t.Context(), f.write(t, dir))
	require.NoError(t, err)
	out, err := p.Publish(t.Context(), f.write(t, dir))
	require.NoError(t, err)
	require.Zero(t, out.ChangedBytes)
	require.Less(t, out.Bytes, int64(8<<10))
	d.fetch(Latest, f)
	d.fetch("1", f)
}

// TestShape: what a checkpoint without memory changes, files and trees does.
func TestShape(t *testing.T) {
	d := newDaemon(t)
	p := d.publisher(Options{})
	f := newFake(10)
	for _, change := range []func(){
		func() {},
		func() { f.files["images/pages-1.img"] = nil },
		func() { f.files["images/pages-3.img"] = f.random(5 * pageSize) },
		func() { delete(f.files, "images/pages-1.img") },
		func() { f.files["images/pages-2.img"] = f.random(100) }, // not whole pages: an image like others
		func() { delete(f.files, "layer/pack.00000001") },
		func() {
			f.files["scratch-7/manifest"], f.files["scratch-7/pack.0000000a"] = []byte("m"), f.random(1<<20)
		},
	} {
		change()
		cp := f.write(t, tempDir(t))
		_, err := p.Publish(t.Context(), cp)
		require.NoError(t, err)
		d.fetch(Tag(cp.Sequence), f)
	}
}

func TestManifest(t *testing.T) {
	d := newDaemon(t)
	p := d.publisher(Options{})
	f := newFake(100)
	f.write(t, tempDir(t))
	full, err := p.Publish(t.Context(), f.write(t, tempDir(t)))
	require.NoError(t, err)
	f.change(2)
	next, err := p.Publish(t.Context(), f.write(t, tempDir(t)))
	require.NoError(t, err)
	for _, out := range []Published{full, next} {
		b, err := readBlob(d.ctx, d.Content, out.Target, maxManifest)
		require.NoError(t, err)
		var m ocispec.Manifest
		require.NoError(t, json.Unmarshal(b, &m))
		require.Equal(t, "docker.io/library/app:1", m.Annotations["org.criu.checkpoint.rootfsImageName"])
		require.Equal(t, "4.2.1", m.Annotations["org.criu.checkpoint.criu.version"])
		require.Equal(t, testID, m.Annotations["org.criu.checkpoint.container.name"])
		_, crio := m.Annotations["io.kubernetes.cri-o.annotations.checkpoint.name"]
		require.Equal(t, out.Chain == 0, crio, "only a full image is one for CRI-O")
		b, err = readBlob(d.ctx, d.Content, m.Config, maxManifest)
		require.NoError(t, err)
		var config ocispec.Image
		require.NoError(t, json.Unmarshal(b, &config))
		require.Len(t, config.RootFS.DiffIDs, len(m.Layers))
		require.Equal(t, "linux", config.OS)
		for _, l := range m.Layers {
			info, err := d.Content.Info(d.ctx, l.Digest)
			require.NoError(t, err)
			require.Equal(t, l.Size, info.Size)
		}
	}
}

func TestRetention(t *testing.T) {
	d := newDaemon(t)
	f := newFake(100)
	publish := func(o Options, n int) {
		t.Helper()
		p := d.publisher(o)
		for range n {
			f.change(5)
			_, err := p.Publish(t.Context(), f.write(t, tempDir(t)))
			require.NoError(t, err)
		}
	}
	publish(Options{Retention: Retention{Last: 3}}, 5)
	require.ElementsMatch(t, []string{name("3"), name("4"), name("5"), name(Latest)}, d.names())
	// A pinned image stays and does not count.
	image, err := d.Images.Get(d.ctx, name("3"))
	require.NoError(t, err)
	image.Labels[LabelPin] = "true"
	_, err = d.Images.Update(d.ctx, image, "labels."+LabelPin)
	require.NoError(t, err)
	publish(Options{Retention: Retention{Last: 2}}, 3)
	require.ElementsMatch(t, []string{name("3"), name("7"), name("8"), name(Latest)}, d.names())
	// Fewer bytes than one image has: the last one stays.
	publish(Options{Retention: Retention{Last: 9, MaxBytes: 1}}, 2)
	require.ElementsMatch(t, []string{name("3"), name("10"), name(Latest)}, d.names())
	// A new container of the same name counts from 1 again; its images are the
	// newer ones all the same.
	f.seq = 0
	p := d.publisher(Options{Retention: Retention{Last: 1}})
	cp := f.write(t, tempDir(t))
	cp.Time = time.Now()
	_, err = p.Publish(t.Context(), cp)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{name("3"), name("1"), name(Latest)}, d.names())
	d.fetch("1", f)
}

func name(tag string) string { return Name(testNamespace, testID, tag) }

// TestImagesRemoved: somebody removes the images that the next would share
// layers with.
func TestImagesRemoved(t *testing.T) {
	d := newDaemon(t)
	p := d.publisher(Options{})
	f := newFake(100)
	dir := tempDir(t)
	for range 2 {
		_, err := p.Publish(t.Context(), f.write(t, dir))
		require.NoError(t, err)
	}
	for _, n := range d.names() {
		require.NoError(t, d.Images.Delete(d.ctx, n))
	}
	d.collectGarbage()
	require.Zero(t, d.blobs())
	out, err := p.Publish(t.Context(), f.write(t, dir))
	require.NoError(t, err)
	require.Zero(t, out.Chain)
	d.collectGarbage()
	d.fetch(Latest, f)
}

func TestNotPublishable(t *testing.T) {
	d := newDaemon(t)
	for what, damage := range map[string]func(dir string) error{
		"no cut":       func(dir string) error { return os.Remove(filepath.Join(dir, "cut.json")) },
		"no inventory": func(dir string) error { return os.Remove(filepath.Join(dir, "images/inventory.img")) },
		"no images":    func(dir string) error { return os.RemoveAll(filepath.Join(dir, "images")) },
		"a link":       func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "images/x.img")) },
		"a directory":  func(dir string) error { return os.Mkdir(filepath.Join(dir, "images/x.img"), 0o700) },
		"a bad name":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "images/x y"), nil, 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			cp := newFake(1).write(t, tempDir(t))
			require.NoError(t, damage(cp.Dir))
			out, err := d.publisher(Options{}).Publish(t.Context(), cp)
			require.ErrorIs(t, err, ErrNotPublishable)
			require.Empty(t, out.Name)
			require.Empty(t, d.names())
		})
	}
}

func TestNames(t *testing.T) {
	require.Equal(t, "crsc.local/crsc/default/redis:7", Name("default", "redis", Tag(7)))
	require.Regexp(t, `^crsc\.local/crsc/k8s\.io/app-[0-9a-f]{8}:latest$`, Name("k8s.io", "App", Latest))
	require.NotEqual(t, Name("a", "App", Latest), Name("a", "aPP", Latest))
}

// TestRootfsSize: a writable layer of another size than was said makes no image.
func TestRootfsSize(t *testing.T) {
	for _, wrong := range []int64{-1, 1} {
		d := newDaemon(t)
		cp := newFake(10).write(t, tempDir(t))
		cp.Rootfs.Size = func() (int64, error) { return int64(len(fakeRootfs)) + wrong, nil }
		_, err := d.publisher(Options{}).Publish(t.Context(), cp)
		require.ErrorContains(t, err, nameRootfs)
		require.Empty(t, d.names())
	}
}
