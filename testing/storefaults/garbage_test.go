package storefaults

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// eagerCollector makes the daemon collect garbage after every change.
const eagerCollector = `
[plugins."io.containerd.gc.v1.scheduler"]
  pause_threshold = 0.5
  deletion_threshold = 1
  mutation_threshold = 1
  schedule_delay = "0s"
  startup_delay = "0s"
`

// TestGarbageCollection: a daemon that collects garbage all the time, and an
// operator who prunes references, leave every image whole that is to stay, and
// nothing of the others.
func TestGarbageCollection(t *testing.T) {
	r := newRig(t)
	r.e = r.e.WithDaemonConfig(eagerCollector)
	require.NoError(t, r.e.RestartDaemon(t.Context(), false))
	before := r.blobs()
	r.run()
	for range 4 {
		s := r.awaitImages(2)
		require.Zero(t, s.Images.Failed, s.Images.LastError)
		r.e.MustCtr(t, "content", "prune", "references")
	}
	r.crash()
	r.e.MustCtr(t, "task", "rm", "--force", r.id)
	r.e.MustCtr(t, "content", "prune", "references")
	r.requireImages()

	want := r.needed()
	have := r.blobs()
	maps.DeleteFunc(have, func(digest string, _ bool) bool { return before[digest] })
	require.ElementsMatch(t, slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(have)))
	r.requireTidy(before)
}

// needed are the digests of all that the container's images consist of.
func (r *rig) needed() map[string]bool {
	r.t.Helper()
	s, ctx := r.store()
	list, err := s.Catalog(ctx, r.e.Namespace, r.id)
	require.NoError(r.t, err)
	// One more if the end of the container came before retention.
	require.Contains(r.t, []int{3, 4}, len(list), "what publish-keep says")
	out := map[string]bool{}
	for _, image := range list {
		b, err := content.ReadBlob(ctx, s.Content, image.Target)
		require.NoError(r.t, err)
		var m ocispec.Manifest
		require.NoError(r.t, json.Unmarshal(b, &m))
		for _, d := range append(m.Layers, m.Config, image.Target) {
			out[d.Digest.String()] = true
		}
	}
	return out
}
