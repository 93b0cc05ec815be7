package oci

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
)

// relabel gives an image the labels that containerd's import gives.
func (d *daemon) relabel(target ocispec.Descriptor) {
	d.t.Helper()
	b, err := readBlob(d.ctx, d.Content, target, maxManifest)
	require.NoError(d.t, err)
	var m ocispec.Manifest
	require.NoError(d.t, json.Unmarshal(b, &m))
	info := content.Info{Digest: target.Digest, Labels: map[string]string{}}
	for i, child := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		key := images.ChildGCLabels(child)[0]
		if strings.HasSuffix(key, ".") {
			key += fmt.Sprint(i)
		}
		info.Labels[key] = child.Digest.String()
	}
	_, err = d.Content.Update(d.ctx, info, "labels")
	require.NoError(d.t, err)
}

// pruneReferences is what ctr content prune references does.
func (d *daemon) pruneReferences() {
	d.t.Helper()
	var pruned []content.Info
	require.NoError(d.t, d.Content.Walk(d.ctx, func(i content.Info) error {
		pruned = append(pruned, i)
		return nil
	}))
	for _, i := range pruned {
		for key := range i.Labels {
			rest, ok := strings.CutPrefix(key, labelGC)
			if ok && (strings.HasPrefix(rest, "l.") || strings.Trim(rest, "0123456789") == "" && rest != "0") {
				delete(i.Labels, key)
			}
		}
		_, err := d.Content.Update(d.ctx, i, "labels")
		require.NoError(d.t, err)
	}
	d.collectGarbage()
}

// TestKeep: an image that came from elsewhere is one of ours from then on.
func TestKeep(t *testing.T) {
	d := newDaemon(t)
	p := d.publisher(Options{})
	f := newFake(200)
	var kept *fakeCheckpoint
	var targets []ocispec.Descriptor
	for range 3 {
		f.change(5)
		out, err := p.Publish(t.Context(), f.write(t, tempDir(t)))
		require.NoError(t, err)
		targets = append(targets, out.Target)
		if len(targets) == 2 {
			kept = f.clone()
		}
	}
	for _, target := range targets {
		d.relabel(target)
	}
	require.ErrorIs(t, d.Keep(d.ctx, targets[1], &Trust{}), ErrUntrusted)
	for range 2 {
		require.NoError(t, d.Keep(d.ctx, targets[1], anyone().Trust))
	}
	d.pruneReferences()
	d.fetch("2", kept)
	_, err := Fetch(d.ctx, d.Content, targets[2], tempDir(t)+"/out", anyone())
	require.ErrorIs(t, err, ErrIncomplete)
}

// TestImagesBesideCRI: the CRI plugin finds its label and gives no second names,
// and the kubelet passes over what is pinned.
func TestImagesBesideCRI(t *testing.T) {
	d := newDaemon(t)
	o := Options{Store: d.Store, Dir: tempDir(t) + "/publish", Origin: Origin{Namespace: "k8s.io", ID: testID, Spec: []byte(`{}`), CRIUVersion: "4.2.1"}}
	ctx := namespaces.WithNamespace(t.Context(), o.Origin.Namespace)
	_, err := metadata.NewContainerStore(d.db).Create(ctx, containers.Container{
		ID: testID, Runtime: containers.RuntimeInfo{Name: "io.containerd.crsc.v1"}, Spec: &anypb.Any{TypeUrl: "spec", Value: []byte("{}")},
	})
	require.NoError(t, err)
	p, err := NewPublisher(o)
	require.NoError(t, err)
	_, err = p.Publish(t.Context(), newFake(10).write(t, tempDir(t)))
	require.NoError(t, err)
	list, err := d.Images.List(ctx)
	require.NoError(t, err)
	require.Len(t, list, 2)
	for _, image := range list {
		require.Equal(t, "managed", image.Labels["io.cri-containerd.image"], image.Name)
		require.Equal(t, testID, image.Labels[labelContainer])
	}
	for _, want := range []string{"pinned", ""} {
		require.NoError(t, d.Pin(ctx, "k8s.io", testID, "1", want != ""))
		image, err := d.Images.Get(ctx, Name("k8s.io", testID, "1"))
		require.NoError(t, err)
		require.Equal(t, want, image.Labels["io.cri-containerd.pinned"])
		require.Equal(t, "managed", image.Labels["io.cri-containerd.image"])
	}
}
