package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/load"
)

// TestImages: checkpoints of a container under load become images that other
// tools open, and crashes are hidden meanwhile.
func TestImages(t *testing.T) {
	t.Parallel()
	c := redis(t, protected("checkpoint-interval", "300ms", "publish", "true", "publish-keep", "100"))
	c.removeImages()
	l := c.drive(load.Options{Connections: 10, Rate: 500})
	c.awaitImages(3)
	require.Zero(t, c.crash().Differing)
	s := c.awaitImages(3)
	require.Positive(t, s.Images.Last.Chain, "an incremental image")
	require.Less(t, s.Images.Last.ChangedBytes, s.Images.Last.MemoryBytes)
	ls := c.ctr("images", "ls")
	latest := oci.Name(c.e.Namespace, c.id, oci.Latest)
	require.Contains(t, ls, latest)
	require.Contains(t, ls, "application/vnd.oci.image.manifest.v1+json")
	require.Contains(t, ls, "linux/amd64")
	c.ctr("images", "tag", latest, "gc-"+c.id)
	c.ctr("images", "rm", "--sync", "gc-"+c.id) // a garbage collection
	require.Contains(t, c.ctr("content", "ls"), s.Images.Last.Digest[:16])

	image := c.export(latest)
	shown := c.checkpointctl("show", image.state)
	require.Contains(t, shown, c.id)
	require.Contains(t, shown, "containerd")
	inspected := c.checkpointctl("inspect", "--ps-tree", "--sockets", "--files", image.state)
	require.Contains(t, inspected, "redis-server", "the process tree")
	require.Regexp(t, `TCP \(LISTEN\)\S* +0\.0\.0\.0:6379|LISTEN.*6379`, inspected, "sockets")
	require.Regexp(t, `ESTABLISHED.*6379`, inspected, "connections of clients")
	require.Regexp(t, `\[cwd\]|cwd`, inspected, "files")
	c.fetchImage(latest)
	c.finish(l)
}

// TestFullImage: the first image of a chain holds all that other tools look for.
func TestFullImage(t *testing.T) {
	t.Parallel()
	c := redis(t, noTriggers("publish", "true"))
	c.removeImages()
	c.ctr("task", "exec", "--exec-id", "x", c.id, "sh", "-c", "echo hello >/etc/greeting; rm /etc/passwd || true")
	s := c.awaitImages(1)
	require.Zero(t, s.Images.Last.Chain)
	image := c.export(s.Images.Last.Name)
	require.Equal(t, c.id, image.manifest.Annotations["io.kubernetes.cri-o.annotations.checkpoint.name"])
	require.Contains(t, c.checkpointctl("show", image.state), "ROOT FS DIFF SIZE")
	all := c.checkpointctl("inspect", "--all", image.state)
	require.Contains(t, all, "redis-server *:6379", "the command line, from memory")
	require.Contains(t, all, "Frozen time")
	rootfs := image.file(t, "rootfs-diff.tar")
	require.Equal(t, "hello\n", string(rootfs["etc/greeting"]))
	dir := c.fetchImage(s.Images.Last.Name)
	require.FileExists(t, filepath.Join(dir, "layer", "manifest"))
}

// TestNoImagesByDefault: whoever does not ask for images gets none.
func TestNoImagesByDefault(t *testing.T) {
	t.Parallel()
	c := redis(t, protected("checkpoint-interval", "200ms"))
	c.awaitCheckpoint()
	require.Nil(t, c.status().Images)
	require.NotContains(t, c.ctr("images", "ls", "-q"), c.id)
}

// awaitImages waits for n more images.
func (c *container) awaitImages(n int) *status.Status {
	c.t.Helper()
	have := 0
	if s, ok := c.readStatus(); ok && s.Images != nil {
		have = s.Images.Count
	}
	return c.await("images", func(s *status.Status) bool {
		require.Zero(c.t, failures(s), "%+v", s.Images)
		return s.Images != nil && s.Images.Count >= have+n && s.Phase == "running"
	})
}

func failures(s *status.Status) int {
	if s.Images == nil {
		return 0
	}
	return s.Images.Failed
}

// removeImages removes the container's images at the end.
func (c *container) removeImages() {
	c.t.Cleanup(func() {
		for name := range strings.Lines(c.ctr("images", "ls", "-q")) {
			if strings.Contains(name, "/"+c.id+":") {
				c.ctr("images", "rm", strings.TrimSpace(name))
			}
		}
	})
}

// exported is an image as ctr exports it.
type exported struct {
	manifest ocispec.Manifest
	state    string // file of the standard layer
}

func (c *container) export(name string) exported {
	c.t.Helper()
	dir := c.t.TempDir()
	file := filepath.Join(dir, "image.tar")
	// Without --local ctr may end before the last bytes of the stream that it
	// asked the daemon for have arrived.
	c.ctr("images", "export", "--local", file, name)
	f, err := os.Open(file)
	require.NoError(c.t, err)
	defer f.Close()
	blobs := readTar(c.t, f)
	var index ocispec.Index
	require.NoError(c.t, json.Unmarshal(blobs["index.json"], &index))
	require.Len(c.t, index.Manifests, 1)
	out := exported{state: filepath.Join(dir, "checkpoint.tar.zst")}
	require.NoError(c.t, json.Unmarshal(blobs["blobs/sha256/"+index.Manifests[0].Digest.Encoded()], &out.manifest))
	for _, l := range out.manifest.Layers {
		data, ok := blobs["blobs/sha256/"+l.Digest.Encoded()]
		require.True(c.t, ok, "layer %s is not in the export", l.Digest)
		require.Len(c.t, data, int(l.Size))
		if l.Annotations["crsc.io/role"] == "checkpoint" {
			require.NoError(c.t, os.WriteFile(out.state, data, 0o600))
		}
	}
	require.FileExists(c.t, out.state)
	return out
}

// file reads a tar inside the standard layer.
func (e exported) file(t *testing.T, name string) map[string][]byte {
	t.Helper()
	f, err := os.Open(e.state)
	require.NoError(t, err)
	defer f.Close()
	z, err := zstd.NewReader(f)
	require.NoError(t, err)
	defer z.Close()
	inner, ok := readTar(t, z)[name]
	require.True(t, ok, "%s is not in the layer", name)
	return readTar(t, bytes.NewReader(inner))
}

func readTar(t testing.TB, r io.Reader) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all[h.Name], err = io.ReadAll(tr)
		require.NoError(t, err)
	}
}

func (c *container) checkpointctl(args ...string) string {
	c.t.Helper()
	require.FileExists(c.t, filepath.Join(c.e.ToolsDir, "checkpointctl"), "run testing/env/install")
	out, err := c.e.Command(c.t.Context(), "checkpointctl", args...).CombinedOutput()
	require.NoError(c.t, err, string(out))
	return string(out)
}

// fetchImage makes a checkpoint directory of an image, and reads the images.
func (c *container) fetchImage(name string) string {
	c.t.Helper()
	store, err := oci.Dial(c.e.Address)
	require.NoError(c.t, err)
	defer store.Close()
	ctx := namespaces.WithNamespace(c.t.Context(), c.e.Namespace)
	image, err := store.Images.Get(ctx, name)
	require.NoError(c.t, err)
	dir := filepath.Join(c.t.TempDir(), "checkpoint")
	begun := time.Now()
	trust, err := oci.NewTrust(oci.TrustOptions{Keys: []string{publicKey(c.e)}})
	require.NoError(c.t, err)
	_, err = oci.Fetch(ctx, store.Content, image.Target, dir, oci.FetchOptions{Trust: trust})
	require.NoError(c.t, err)
	c.t.Logf("fetched %s in %s", name, time.Since(begun))
	sockets, err := criu.TCPSockets(filepath.Join(dir, "images"))
	require.NoError(c.t, err)
	require.NotNil(c.t, sockets)
	return dir
}
