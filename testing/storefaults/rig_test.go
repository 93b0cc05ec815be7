package storefaults

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

const (
	instance = "storefaults"
	patience = time.Minute
)

// rig is one container in an environment that may be broken.
type rig struct {
	t   *testing.T
	e   *env.Env
	pod *env.Netns
	id  string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, e: env.RequireInstance(t, instance), id: env.UniqueName(t)}
	r.pod = r.e.NewPod(t)
	_, err := ociimage.Import(t.Context(), r.e, "redis")
	require.NoError(t, err)
	r.e.RemoveContainer(t, r.id)
	return r
}

// run runs a Redis whose checkpoints are published all the time.
func (r *rig) run(annotations ...string) {
	r.t.Helper()
	a := map[string]string{
		"crsc.io/checkpoint-restore": "true", "crsc.io/recovery-budget": "unlimited", "crsc.io/checkpoint-interval": "100ms",
		"crsc.io/publish": "true", "crsc.io/publish-keep": "3",
	}
	for i := 0; i < len(annotations); i += 2 {
		a["crsc.io/"+annotations[i]] = annotations[i+1]
	}
	require.NoError(r.t, r.e.Run(r.t.Context(), env.Container{ID: r.id, Image: ociimage.Ref("redis"), Netns: r.pod.Path, Annotations: a}))
}

// await waits until the status satisfies a condition.
func (r *rig) await(what string, cond func(*status.Status) bool) *status.Status {
	r.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		s, err := status.Read(filepath.Dir(r.e.StatusFile(r.id)))
		if err == nil && cond(s) {
			return s
		}
		require.True(r.t, time.Now().Before(deadline), "waited for %s: %v %+v", what, err, s)
	}
}

// awaitImages waits for n more images.
func (r *rig) awaitImages(n int) *status.Status {
	r.t.Helper()
	have := -1
	return r.await(fmt.Sprint(n, " images"), func(s *status.Status) bool {
		if s.Images == nil {
			return false
		}
		if have < 0 {
			have = s.Images.Count
		}
		return s.Images.Count >= have+n
	})
}

// crash kills the init as a bug would, and waits for the recovery.
func (r *rig) crash() {
	r.t.Helper()
	before := r.await("a running container", func(s *status.Status) bool { return s.Phase == "running" && s.Protected })
	pid, _, err := r.e.Task(r.t.Context(), r.id)
	require.NoError(r.t, err)
	require.NoError(r.t, syscall.Kill(pid, syscall.SIGKILL))
	r.await("the recovery", func(s *status.Status) bool {
		require.NotEqual(r.t, "stopped", s.Phase, s.Reason)
		return s.RecoveryCount > before.RecoveryCount && s.Phase == "running"
	})
}

func (r *rig) store() (*oci.Store, context.Context) {
	r.t.Helper()
	s, err := oci.Dial(r.e.Address)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = s.Close() })
	return s, namespaces.WithNamespace(context.Background(), r.e.Namespace)
}

// requireImages checks that there are images of the container, and that each is
// whole.
func (r *rig) requireImages() {
	r.t.Helper()
	s, ctx := r.store()
	list, err := s.Catalog(ctx, r.e.Namespace, r.id)
	require.NoError(r.t, err)
	require.NotEmpty(r.t, list)
	trust, err := oci.NewTrust(oci.TrustOptions{Keys: []string{filepath.Join(r.e.StateDir, ".keys", "signing.pem.pub")}})
	require.NoError(r.t, err)
	for i, image := range list {
		dir := filepath.Join(r.t.TempDir(), fmt.Sprint(i))
		_, err := oci.Fetch(ctx, s.Content, image.Target, dir, oci.FetchOptions{Trust: trust})
		require.NoError(r.t, err, image.Name)
	}
}

// requireTidy removes the container's images, and checks that a garbage
// collection then leaves nothing of them: no blob, no lease, no upload.
func (r *rig) requireTidy(before map[string]bool) {
	r.t.Helper()
	s, ctx := r.store()
	list, err := s.Images.List(ctx)
	require.NoError(r.t, err)
	for _, i := range list {
		if strings.Contains(i.Name, "/"+r.id+":") {
			require.NoError(r.t, s.Images.Delete(ctx, i.Name))
		}
	}
	r.e.MustCtr(r.t, "images", "tag", ociimage.Ref("redis"), "gc-"+r.id)
	r.e.MustCtr(r.t, "images", "rm", "--sync", "gc-"+r.id) // a garbage collection
	require.NotContains(r.t, r.e.MustCtr(r.t, "leases", "ls", "-q"), "crsc-")
	require.NotContains(r.t, r.e.MustCtr(r.t, "content", "active"), "crsc-")
	for digest := range r.blobs() {
		require.True(r.t, before[digest], "blob %s is left", digest)
	}
}

// blobs are the digests in the content store.
func (r *rig) blobs() map[string]bool {
	r.t.Helper()
	out := map[string]bool{}
	for line := range strings.Lines(r.e.MustCtr(r.t, "content", "ls", "-q")) {
		out[strings.TrimSpace(line)] = true
	}
	return out
}
