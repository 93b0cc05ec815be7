package oci

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	testNamespace = "ns"
	testID        = "App.1"
	fakeRootfs    = "rootfs tar"
)

// daemon is containerd's metadata store without the daemon: the same code.
type daemon struct {
	t   testing.TB
	ctx context.Context
	db  *metadata.DB
	dir string
	*Store
}

// tempDir is in memory: what is tested is the order of steps, and it syncs a lot.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "crsc-oci-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func newDaemon(t testing.TB) *daemon {
	t.Helper()
	d := &daemon{t: t, ctx: namespaces.WithNamespace(context.Background(), testNamespace), dir: tempDir(t)}
	cs, err := local.NewStore(filepath.Join(d.dir, "content"))
	require.NoError(t, err)
	bdb, err := bolt.Open(filepath.Join(d.dir, "meta.db"), 0o600, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bdb.Close()) })
	d.db = metadata.NewDB(bdb, cs, nil)
	require.NoError(t, d.db.Init(d.ctx))
	d.Store = &Store{
		Content: d.db.ContentStore(), Images: metadata.NewImageStore(d.db), Leases: metadata.NewLeaseManager(d.db),
		Containers: metadata.NewContainerStore(d.db), Namespaces: namespaceList{testNamespace, "other"},
	}
	d.addContainer(testID)
	return d
}

// addContainer makes containerd know one.
func (d *daemon) addContainer(id string) {
	d.t.Helper()
	_, err := metadata.NewContainerStore(d.db).Create(d.ctx, containers.Container{
		ID: id, Image: "docker.io/library/app:1", Runtime: containers.RuntimeInfo{Name: "io.containerd.crsc.v1"}, Spec: &anypb.Any{TypeUrl: "spec", Value: []byte("{}")},
	})
	require.NoError(d.t, err)
}

func (d *daemon) collectGarbage() {
	d.t.Helper()
	_, err := d.db.GarbageCollect(d.ctx)
	require.NoError(d.t, err)
}

// blobs counts what is in the content store, and fails if an upload is.
func (d *daemon) blobs() (n int) {
	d.t.Helper()
	err := filepath.WalkDir(filepath.Join(d.dir, "content"), func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.Type().IsRegular() && strings.Contains(path, "/blobs/") {
			n++
		}
		return err
	})
	require.NoError(d.t, err)
	list, err := d.Content.ListStatuses(d.ctx)
	require.NoError(d.t, err)
	require.Empty(d.t, list, "unfinished uploads")
	return n
}

func (d *daemon) publisher(o Options) *Publisher {
	d.t.Helper()
	if o.Store == nil {
		o.Store = d.Store
	}
	o.Dir = filepath.Join(tempDir(d.t), "publish")
	o.Origin = Origin{Namespace: testNamespace, ID: testID, Spec: []byte(`{"ociVersion":"1.2.0","annotations":{"a":"b"}}`), CRIUVersion: "4.2.1"}
	p, err := NewPublisher(o)
	require.NoError(d.t, err)
	return p
}

// names of the container's images.
func (d *daemon) names() (out []string) {
	d.t.Helper()
	list, err := d.Images.List(d.ctx)
	require.NoError(d.t, err)
	for _, i := range list {
		out = append(out, i.Name)
	}
	return out
}

// anyone believes whatever the digests allow.
func anyone() FetchOptions { return FetchOptions{Trust: &Trust{allowUnsigned: true}} }

// fetch fetches an image, and compares it with the checkpoint it was made of.
func (d *daemon) fetch(tag string, want *fakeCheckpoint) *Info {
	d.t.Helper()
	image, err := d.Images.Get(d.ctx, Name(testNamespace, testID, tag))
	require.NoError(d.t, err)
	dir := filepath.Join(tempDir(d.t), "fetched")
	info, err := Fetch(d.ctx, d.Content, image.Target, dir, anyone())
	require.NoError(d.t, err)
	want.requireSame(d.t, dir)
	return info
}

// fakeCheckpoint is a checkpoint directory with made-up content.
type fakeCheckpoint struct {
	files map[string][]byte
	seq   uint64
	rnd   *rand.Rand
}

func newFake(pages int) *fakeCheckpoint {
	f := &fakeCheckpoint{files: map[string][]byte{}, seq: 0, rnd: rand.New(rand.NewPCG(1, 2))}
	f.files["images/inventory.img"] = []byte("inventory")
	f.files["images/core-1.img"] = []byte("core")
	f.files["images/dump.log"] = []byte("log\n")
	f.files["images/stats-dump"] = []byte("stats")
	f.files["images/pages-1.img"] = f.random(pages * pageSize)
	f.files["images/pages-2.img"] = make([]byte, 3*pageSize)
	f.files["layer/manifest"] = []byte("manifest")
	f.files["layer/pack.00000001"] = f.random(ownLayer + 1)
	f.files["layer/pack.00000002"] = f.random(100)
	f.files["scratch-0/manifest"] = []byte("manifest 0")
	f.files["volume-0/manifest"] = []byte("manifest of a volume")
	f.files["volume-0/pack.00000001"] = f.random(ownLayer + 1)
	f.files["cut.json"] = []byte(`{"version":1}`)
	return f
}

func (f *fakeCheckpoint) random(n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], f.rnd.Uint64())
	}
	return b
}

// change writes to n pages, moves the rest by one page, and counts on.
func (f *fakeCheckpoint) change(n int) {
	old := f.files["images/pages-1.img"]
	b := append(f.random(pageSize), old...)[:len(old)]
	for _, page := range f.rnd.Perm(len(b)/pageSize - 1)[:n-1] {
		copy(b[(1+page)*pageSize:], f.random(pageSize))
	}
	f.files["images/pages-1.img"] = b
	f.files["images/core-1.img"] = fmt.Appendf(nil, "core at %d", f.seq)
}

// write makes the directory, as the shim would: packs keep their inodes.
func (f *fakeCheckpoint) write(t testing.TB, dir string) Checkpoint {
	t.Helper()
	f.seq++
	for name, b := range f.files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		if old, err := os.ReadFile(path); err == nil && string(old) == string(b) {
			continue
		}
		require.NoError(t, os.RemoveAll(path))
		require.NoError(t, os.WriteFile(path, b, 0o600))
	}
	return Checkpoint{
		Dir: dir, Sequence: f.seq, Time: time.Unix(1_700_000_000+int64(f.seq), 5), Annotations: map[string]string{"crsc.io/connections": "3"},
		Rootfs: &Rootfs{
			Size:  func() (int64, error) { return int64(len(fakeRootfs)), nil },
			Write: func(w io.Writer) error { _, err := io.WriteString(w, fakeRootfs); return err },
		},
	}
}

// clone is the checkpoint as it is now.
func (f *fakeCheckpoint) clone() *fakeCheckpoint {
	c := *f
	c.files = maps.Clone(f.files)
	return &c
}

func (f *fakeCheckpoint) requireSame(t testing.TB, dir string) {
	t.Helper()
	have := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if filepath.Base(rel) == "synced" {
			return nil
		}
		have[rel], err = os.ReadFile(path)
		return err
	})
	require.NoError(t, err)
	for name, b := range f.files {
		require.Contains(t, have, name)
		require.Equal(t, sha256.Sum256(b), sha256.Sum256(have[name]), name)
	}
	require.Len(t, have, len(f.files))
	entries, err := os.ReadDir(filepath.Dir(dir))
	require.NoError(t, err)
	require.Len(t, entries, 1, "temporary files are left")
}

// namespaceList are the namespaces that there are.
type namespaceList []string

// List implements Namespaces.
func (l namespaceList) List(context.Context) ([]string, error) { return l, nil }
